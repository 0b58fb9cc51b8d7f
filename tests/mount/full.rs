//! C1, C5: the store's disk is full, or one file of it cannot be changed. Whoever writes hears of it, nothing that was
//! acknowledged is lost, reading goes on, and so does writing once there is room again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::path::Path;

use crate::harness::{self, Image, Mount};

/// Room that a test gives back.
const BALLAST_BYTES: usize = 4 << 20;
const NO_SPACE: &str = "No space left on device";

/// What every key is to hold.
type Values = BTreeMap<String, Vec<u8>>;

fn text(writer: &str, number: u64, size: usize) -> Vec<u8> {
    let mut text = format!("{writer} {number} {size}\n").repeat(size / 8 + 1).into_bytes();
    text.truncate(size);
    text
}

/// Writes a whole value, and hears what the close says.
fn put(path: &Path, value: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(value)?;
    // SAFETY: the descriptor was just taken from its owner, and is closed once.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writers fill the disk side by side. What refused whom, and how often.
fn fill(mount: &Mount, writers: &[&str], values: &mut Values) -> BTreeMap<String, usize> {
    let start = |writer: &&str| {
        let sizes = ["300000", "100000", "30000", "5000", "700"];
        let mut command = mount.command(&[harness::python(), "-c", include_str!("full.py"), writer]);
        command.args(sizes).env("BATON_WRITER_ID", writer);
        mount.spawn(command)
    };
    let running: Vec<_> = writers.iter().map(start).collect();
    let mut refusals = BTreeMap::new();
    for (writer, running) in writers.iter().zip(running) {
        for line in running.wait().ok().lines() {
            let words: Vec<_> = line.splitn(4, ' ').collect();
            let (number, size) = (words[1].parse().expect("a number"), words[2].parse().expect("a size"));
            if words[3] == "taken" {
                values.insert(words[0].to_owned(), text(writer, number, size));
            } else {
                if !words[3].ends_with(NO_SPACE) {
                    println!("{line}");
                }
                *refusals.entry(words[3].to_owned()).or_default() += 1;
            }
        }
    }
    println!("{} values are there; refused: {refusals:?}", values.len());
    refusals
}

/// The session has these values and no others, and says so in every way.
fn look(mount: &Mount, values: &Values, when: &str) {
    assert_eq!(mount.names(""), values.keys().cloned().collect::<Vec<_>>(), "{when}");
    for (key, value) in values {
        assert_eq!(fs::metadata(mount.path(key)).expect("stat").len(), value.len() as u64, "{key}, {when}");
        assert!(fs::read(mount.path(key)).expect("a value") == *value, "{key} is not what was written, {when}");
    }
    let lines = mount.log();
    let seqs: Vec<_> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=lines.len() as u64).collect::<Vec<_>>(), "{when}");
    for key in values.keys().filter(|key| key.contains('.')) {
        let writer = mount.xattr(key, "user.baton.writer_id").unwrap_or_default();
        assert_eq!(writer, key.split('.').next().unwrap_or_default(), "{key}, {when}");
    }
}

// C1 C5 C19
#[test]
fn a_full_disk_is_told_to_the_writer_and_takes_nothing_and_with_room_again_writing_goes_on() {
    let Some(mut mount) = Mount::on_image(Image::new(16)) else { return };
    let ballast = mount.store().with_file_name("ballast");
    fs::write(&ballast, vec![7; BALLAST_BYTES]).expect("a file");
    let mut values = Values::new();
    for key in ["kept", "replaced"] {
        let old = text(key, 0, 20_000);
        put(&mount.path(key), &old).expect("there is room");
        values.insert(key.to_owned(), old);
    }
    let refusals = fill(&mount, &["w0", "w1", "w2"], &mut values);
    let full =
        refusals.iter().filter(|(refusal, _)| refusal.ends_with(NO_SPACE)).map(|(_, times)| times).sum::<usize>();
    assert!(full > 0, "the disk was never full: {refusals:?}");
    assert_eq!(full, refusals.values().sum::<usize>(), "{refusals:?}\n{}", mount.errors());
    look(&mount, &values, "on a full disk");
    // An old value stays, and a delete is made or refused.
    let new = text("replaced", 1, 400_000);
    harness::fails(put(&mount.path("replaced"), &new), libc::ENOSPC);
    look(&mount, &values, "after a refusal");
    delete(&mount, &mut values, "w0.0");
    look(&mount, &values, "after a delete");

    mount.again(&[]);
    look(&mount, &values, "mounted again while it is full");
    fill(&mount, &["w3"], &mut values);
    look(&mount, &values, "full again");
    mount.crash();
    look(&mount, &values, "killed and mounted while it is full");
    fill(&mount, &["w4"], &mut values);
    delete(&mount, &mut values, "w1.0");

    fs::remove_file(&ballast).expect("room again");
    put(&mount.path("replaced"), &new).expect("there is room again");
    values.insert("replaced".to_owned(), new);
    delete(&mount, &mut values, "w0.1");
    look(&mount, &values, "with room again");
    mount.again(&[]);
    look(&mount, &values, "mounted again with room");
    fill(&mount, &["w5", "w6"], &mut values);
    mount.crash();
    look(&mount, &values, "killed");
    // What is taken away beside the mount makes room too.
    let (gone, rest): (Values, Values) = values.into_iter().partition(|(_, value)| value.len() == 300_000);
    let mut values = rest;
    for key in gone.keys() {
        fs::remove_file(mount.stored(key)).expect("beside the mount");
        drop(fs::remove_file(mount.stored(&format!(".agent_state_meta/{key}.json"))));
    }
    let new = text("kept", 1, 100_000);
    put(&mount.path("kept"), &new).expect("there is room again");
    values.insert("kept".to_owned(), new);
    look(&mount, &values, "with room from beside the mount");
}

/// Deletes a key, or is refused in words.
fn delete(mount: &Mount, values: &mut Values, key: &str) {
    match fs::remove_file(mount.path(key)) {
        Ok(()) => drop(values.remove(key)),
        Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOSPC), "deleting {key}: {e}"),
    }
}

// C1: the session whose value cannot be put in its place waits for it; the others go on.
#[test]
fn a_file_that_nobody_may_change_keeps_no_other_session() {
    let Some(mut mount) = Mount::on_image(Image::new(16)) else { return };
    let other = mount.point().join("other");
    fs::create_dir(&other).expect("a session");
    mount.write("k", "old");
    mount.write("l", "old");
    let stored = mount.stored("k");
    Image::freeze(&stored, true);
    let (mut value, mut other_value) = ("old", "");
    for round in ["at once", "mounted again", "killed"] {
        let written = put(&mount.path("k"), b"new");
        if written.is_ok() {
            value = "new";
        }
        println!("{round}: {written:?}, then another key of the session: {:?}", put(&mount.path("m"), b"new"));
        assert_eq!(mount.read("k"), value, "{round}");
        assert_eq!(mount.read("l"), "old", "{round}");
        put(&other.join("k"), round.as_bytes()).unwrap_or_else(|e| panic!("{round}: another session: {e}"));
        other_value = round;
        assert_eq!(fs::read_to_string(other.join("k")).expect("a value"), round);
        match round {
            "at once" => mount.again(&[]),
            _ => mount.crash(),
        }
    }
    assert_eq!((mount.read("k").as_str(), mount.read("l").as_str()), (value, "old"));
    Image::freeze(&stored, false);
    put(&mount.path("l"), b"goes on").expect("it can be put in its place again");
    put(&mount.path("k"), b"goes on too").expect("the same");
    mount.crash();
    assert_eq!((mount.read("k"), mount.read("l")), ("goes on too".to_owned(), "goes on".to_owned()));
    assert_eq!(fs::read_to_string(other.join("k")).expect("a value"), other_value);
    let seqs: Vec<_> = mount.log().iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}
