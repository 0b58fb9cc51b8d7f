//! C11, C12: who has a key open when it is deleted or replaced goes on reading what was opened.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::harness::{self, Mount, fails};

// C12: every open either fails because there is nothing, or reads the whole value.
#[test]
fn an_open_in_the_instant_of_a_delete_reads_the_value_or_finds_nothing() {
    let Some(mount) = Mount::new() else { return };
    let value = "a value that is whole\n".repeat(50);
    fs::write(mount.scratch().join("value"), &value).expect("write");
    let rounds = if harness::long() { 3000 } else { 150 };
    let script = format!(
        "for i in $(seq {rounds}); do cp $TMP/value k; [ $((i % 3)) = 0 ] && {{ cp $TMP/value other; mv other k; }}; rm k; done; touch $TMP/done"
    );
    let writer = mount.spawn(mount.command(&["bash", "-c", &script]));
    let (mut whole, mut none) = (0, 0);
    while !mount.scratch().join("done").exists() {
        let mut file = match File::open(mount.path("k")) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                none += 1;
                continue;
            }
            Err(e) => panic!("open: {e}"),
        };
        let mut read = String::new();
        file.read_to_string(&mut read).expect("what was opened can be read");
        assert_eq!(read, value);
        whole += 1;
    }
    writer.wait().ok();
    assert!(whole > 0 && none > 0, "{whole} reads met the value, {none} opens met none");
}

// C12: neither does a write meet the name's end as an error.
#[test]
fn a_redirection_in_the_instant_of_a_delete_makes_the_key_anew() {
    let Some(mount) = Mount::new() else { return };
    let rounds = if harness::long() { 3000 } else { 200 };
    let remover = mount.spawn(mount.command(&["bash", "-c", "until [ -e $TMP/done ]; do rm -f k; done"]));
    let script = format!("for i in $(seq {rounds}); do echo $i > k || exit 1; done");
    let written = mount.bash(&script);
    fs::write(mount.scratch().join("done"), "").expect("write");
    remover.wait().ok();
    written.ok();
}

// C12
#[test]
fn who_had_a_deleted_key_open_reads_it_also_by_its_descriptors_name() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "kept\n");
    mount.write("new", "new\n");
    let out = mount.bash("exec 3< k; cat k > /dev/null; rm k; cat /dev/fd/3; cat <&3").ok();
    assert_eq!(out, "kept\nkept\n");
    mount.write("k", "again\n");
    assert_eq!(mount.bash("exec 3< k; mv new k; cat /dev/fd/3; cat k").ok(), "again\nnew\n");
}

// C11, C12: opened for update, not yet read when its name goes.
#[test]
fn an_unread_handle_keeps_the_value_of_a_deleted_key() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "kept\n");
    let script = "import os, sys\nf = open('k', 'r+')\nprint('open', flush=True)\nsys.stdin.readline()\nprint(f.read(), end='')\n\
                  f.write('more')\nf.close()\nprint(os.path.exists('k'))";
    let mut command = mount.command(&[harness::python(), "-c", script]);
    command.stdin(Stdio::piped());
    let mut reader = mount.spawn(command);
    reader.printed(1);
    fs::remove_file(mount.path("k")).expect("unlink");
    reader.send("go on");
    assert_eq!(reader.wait().ok(), "open\nkept\nFalse\n");
}

// C12, C18: what is edited is what was opened, or nothing.
#[test]
fn an_update_of_a_key_that_is_deleted_beside_the_mount_makes_no_value_of_zeros() {
    let Some(mount) = Mount::new() else { return };
    let opened = || {
        mount.write("k", "0123456789");
        let file = OpenOptions::new().read(true).write(true).open(mount.path("k")).expect("open");
        fs::remove_file(mount.stored("k")).expect("unlink");
        file
    };
    fails(opened().read_at(&mut [0; 4], 0), libc::ENOENT);
    fails(opened().write_at(b"x", 5), libc::ENOENT);
    fails(opened().set_len(3), libc::ENOENT);
    assert_eq!(mount.names(""), [""; 0]);
}

// C5, C7, C18: what was committed through a handle is no more there than what it was opened on.
#[test]
fn an_edit_that_goes_on_after_a_commit_and_a_delete_by_the_command_makes_no_value_of_zeros() {
    let Some(mount) = Mount::new() else { return };
    let script = "import errno, os, subprocess\nfor key, kind in ('k', os.O_TRUNC), ('log', os.O_APPEND):\n \
                  fd = os.open(key, os.O_RDWR | os.O_CREAT | kind)\n os.write(fd, b'one\\n')\n os.fsync(fd)\n \
                  subprocess.run([os.environ['BATONFS'], 'delete', os.environ['STORE'], 's', key], check=True)\n \
                  try:\n  os.write(fd, b'two\\n')\n  os.close(fd)\n  print(open(key, 'rb').read())\n except OSError as e: print(errno.errorcode[e.errno])";
    assert_eq!(mount.python(script).ok(), "ENOENT\nb'two\\n'\n");
    assert_eq!(mount.names(""), ["log"]);
}

// C8, C11: nor what its value's next one was to be.
#[test]
fn a_name_that_another_has_committed_and_deleted_is_not_made_again_by_who_has_only_created_it() {
    let Some(mount) = Mount::new() else { return };
    let script = "import errno, os, subprocess\nfd = os.open('k', os.O_RDWR | os.O_CREAT)\nsubprocess.run(['bash', '-c', 'echo value > k'])\n\
                  subprocess.run([os.environ['BATONFS'], 'delete', os.environ['STORE'], 's', 'k'], check=True)\n\
                  try: os.read(fd, 9)\nexcept OSError as e: print(errno.errorcode[e.errno])\nos.fsync(fd)\nos.close(fd)\nprint(os.listdir('.'))";
    assert_eq!(mount.python(script).ok(), "ENOENT\n[]\n");
}

// C7, C17, E5: whether or not a commit has made the name.
#[test]
fn a_draft_whose_name_became_a_directory_beside_the_mount_is_refused_at_its_close() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "there");
    let script = "import errno, os\nfor key, kind in ('k', 0), ('new', os.O_CREAT), ('log', os.O_CREAT | os.O_APPEND):\n \
                  fd = os.open(key, os.O_RDWR | kind)\n os.write(fd, b'more')\n \
                  beside = os.environ['STORE'] + '/s/' + key\n if key == 'k': os.unlink(beside)\n os.mkdir(beside)\n print(os.path.isdir(key))\n \
                  try: os.close(fd)\n except OSError as e: print(errno.errorcode[e.errno])";
    assert_eq!(mount.python(script).ok(), "True\nEISDIR\n".repeat(3));
    let errors: Vec<serde_json::Value> =
        mount.errors().lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    assert_eq!(errors.iter().map(|line| &line["key"]).collect::<Vec<_>>(), ["k", "new", "log"], "{errors:?}");
    assert!(mount.errors().contains("put there beside the mount"), "{}", mount.errors());
}

// C10
#[test]
fn a_draft_of_a_key_deleted_beside_the_mount_is_dropped_by_who_moves_another_there() {
    let Some(mount) = Mount::new() else { return };
    let script = "import os\nopen('k', 'w').write('old')\nopen('other', 'w').write('other')\nfd = os.open('k', os.O_RDWR)\nos.write(fd, b'X')\n\
                  os.unlink(os.environ['STORE'] + '/s/k')\nos.rename('other', 'k')\nos.close(fd)\nprint(open('k').read())";
    assert_eq!(mount.python(script).ok(), "other\n");
}
