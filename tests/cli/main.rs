//! The command as its users meet it: the real program, real stores.
#![cfg(test)]

#[path = "../common/command.rs"]
mod command;
#[expect(dead_code, reason = "tests of the mount need more of it")]
#[path = "../common/image.rs"]
mod image;

mod committer;
mod contract;
mod environment;
mod full;
mod handoffs;
mod keep;
mod log;
mod mount_refused;
mod mounted;
mod operations;
mod past;
mod policies;
mod recovery;
mod scenarios;
mod streams;
mod verify;
mod wait;
mod why;

/// A file of tests that nobody lists here would never run.
#[test]
fn every_file_of_tests_runs() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli");
    let listed = include_str!("main.rs");
    for name in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        if let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "main") {
            assert!(listed.contains(&format!("\nmod {name};")), "tests/cli/{name}.rs is not listed in main.rs");
        }
    }
}
