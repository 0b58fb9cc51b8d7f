//! Values that carry their own checksum, under many writers and readers: nothing is ever seen that no commit made.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{self, Mount};

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/pages.py");
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/values.py");

/// Runs the program on a directory for some seconds, or until `enough` observations were wrong.
fn crowd(mount: &Mount, dir: &Path, enough: Option<&str>) -> Value {
    let seconds = if harness::long() { "60" } else { "3" };
    let (dir, scratch) = (dir.to_string_lossy(), mount.scratch());
    let mut words = vec![harness::python(), PROGRAM, &dir, scratch.to_str().expect("UTF-8"), seconds];
    words.extend(enough);
    let ran = mount.run(mount.command(&words));
    let said = ran.err.clone();
    let found: Value = serde_json::from_str(&ran.ok()).expect("a JSON document");
    eprintln!("{found}\n{said}");
    found
}

// C12, C13, C2
#[test]
fn no_torn_partial_empty_or_misreported_value_is_ever_seen() {
    let Some(mount) = Mount::new() else { return };
    let found = crowd(&mount, &mount.path(""), None);
    assert_eq!(found["wrong"], serde_json::json!({}), "{found}");
}

#[test]
fn the_same_readers_on_a_plain_directory_see_hundreds_of_them() {
    let Some(mount) = Mount::new() else { return };
    let plain = mount.scratch().join("plain");
    fs::create_dir(&plain).expect("mkdir");
    let found = crowd(&mount, &plain, Some("500"));
    for kind in ["torn", "empty", "mixed", "size", "listed"] {
        assert!(found["wrong"][kind].as_u64() > Some(0), "nothing {kind} was seen: {found}");
    }
}

#[test]
fn sendfile_and_mappings_of_a_rewritten_key_fail_less_than_of_a_plain_file_and_of_a_replaced_one_never() {
    let Some(mount) = Mount::new() else { return };
    let plain = mount.scratch().join("plain");
    fs::create_dir(&plain).expect("mkdir");
    let (reads, readers) = if harness::long() { ("500", "4") } else { ("16", "4") };
    let places = [format!("mount={}", mount.path("").display()), format!("plain={}", plain.display())];
    let ran = mount.run(mount.command(&[harness::python(), "-B", PAGES, reads, readers, &places[0], &places[1]]));
    let rows: Vec<Value> = serde_json::from_str(&ran.ok()).expect("a list of rows");
    for row in &rows {
        eprintln!("{row}");
    }
    let wrong = |place: &str, way: &str| -> u64 {
        let rows = rows.iter().filter(|row| row[0] == place && row[1] == way);
        rows.flat_map(|row| row[5].as_object().expect("kinds").values()).filter_map(Value::as_u64).sum()
    };
    assert_eq!(wrong("mount", "rename"), 0, "of a value that is replaced");
    let (mount, plain) = (wrong("mount", "rewrite"), wrong("plain", "rewrite"));
    assert!(mount < plain, "of a value that is rewritten: {mount} on the mount, {plain} on a plain directory");
}
