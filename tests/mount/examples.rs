//! The worked examples work, and say what they are said to say.

use std::path::Path;

use crate::harness::Mount;

#[test]
fn three_agents_pass_a_piece_of_work_on_and_the_record_says_who_did_what() {
    // Its own mount is made by the script; this one keeps the others away.
    let Some(mount) = Mount::new() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pipeline/run.sh");
    let mut command = mount.command(&[&*script.to_string_lossy()]);
    command.current_dir("/").env("TMPDIR", mount.scratch());
    let said = mount.run(command).ok();
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let expected = [
        "who wrote what:",
        "planner plan.md 1",
        "planner __handoff.json 1",
        "coder greet.py 1",
        "coder __handoff.json 2",
        "reviewer review.md 1",
        "reviewer __handoff.json 3",
        "the handoff of every session:",
        r#"reviewer: {"result":"passed","task":"none"}"#,
    ];
    assert_eq!(lines, expected, "{said}");
    assert_eq!(std::fs::read_dir(mount.scratch()).expect("a directory").count(), 0, "it leaves nothing");
}
