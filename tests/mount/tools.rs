//! Ordinary programs on the mount: what they do to files elsewhere works here.

use std::fs;

use crate::harness::{self, Mount};

/// Runs a script that must succeed and print exactly this.
#[track_caller]
fn prints(mount: &Mount, script: &str, expected: &str) {
    assert_eq!(mount.bash(&format!("set -e\n{script}")).ok(), expected, "{script}");
}

#[test]
fn editors_in_place_and_whole_files_work() {
    let Some(mount) = Mount::new() else { return };
    prints(&mount, "echo old > k; sed -i s/old/new/ k; cat k", "new\n");
    prints(&mount, "printf '3\\n1\\n2\\n' > n; sort -o n n; tr '\\n' ' ' < n", "1 2 3 ");
    prints(&mount, "echo data > \"$TMP/f\"; install -m 640 \"$TMP/f\" i; stat -c %a i; cat i", "640\ndata\n");
    prints(
        &mount,
        "mv \"$TMP/f\" moved; cat moved; [ ! -e \"$TMP/f\" ]; mv moved \"$TMP/f\"; [ ! -e moved ]",
        "data\n",
    );
    prints(&mount, "cp k copy; cmp k copy; cp --reflink=auto --sparse=always k sparse; cmp k sparse", "");
    prints(&mount, "echo tee | tee t; dd if=t of=dd status=none; cat dd", "tee\ntee\n");
    prints(&mount, "ln k hard 2> /dev/null || echo refused", "refused\n");
    assert_eq!(mount.names(""), ["copy", "dd", "i", "k", "n", "sparse", "t"]);
}

// T7
#[test]
fn walks_and_sizes_agree_with_the_store() {
    let Some(mount) = Mount::new() else { return };
    prints(&mount, "mkdir -p a/b; for i in 1 2 3; do head -c ${i}000 /dev/zero > a/b/$i; done; echo x > a/k", "");
    prints(&mount, "find . -type f | sort", "./a/b/1\n./a/b/2\n./a/b/3\n./a/k\n");
    prints(&mount, "find . -type f -size +1500c | wc -l; find . -name k -exec cat {} +", "2\nx\n");
    prints(&mount, "du --apparent-size -b a/b/1 a/b/3 | cut -f1", "1000\n3000\n");
    prints(&mount, "ls -lR > /dev/null; ls -A", "a\n");
    prints(&mount, "df --output=size \"$MNT\" | tail -n 1 | grep -c '[1-9]'", "1\n");
}

#[test]
fn tar_goes_in_and_out() {
    let Some(mount) = Mount::new() else { return };
    let script = "mkdir -p \"$TMP/tree/d/e\"; echo one > \"$TMP/tree/d/1\"; echo two > \"$TMP/tree/d/e/2\"; \
                  touch -d @1000000000 \"$TMP/tree/d/1\"; chmod 640 \"$TMP/tree/d/e/2\"; \
                  tar -C \"$TMP/tree\" -cf \"$TMP/in.tar\" .; tar -xf \"$TMP/in.tar\"; \
                  diff -r \"$TMP/tree\" .; stat -c '%Y' d/1; stat -c %a d/e/2; \
                  tar -cf \"$TMP/out.tar\" .; tar -tf \"$TMP/out.tar\" | sort";
    prints(&mount, script, "1000000000\n640\n./\n./d/\n./d/1\n./d/e/\n./d/e/2\n");
}

#[test]
fn cp_a_copies_a_tree_in_and_out() {
    let Some(mount) = Mount::new() else { return };
    let script = "mkdir -p \"$TMP/tree/d\"; echo one > \"$TMP/tree/d/1\"; chmod 600 \"$TMP/tree/d/1\"; chmod 750 \"$TMP/tree/d\"; \
                  cp -a \"$TMP/tree\" .; cp -a tree \"$TMP/back\"; diff -r \"$TMP/tree\" \"$TMP/back\"; \
                  stat -c %a \"$TMP/back/d\" \"$TMP/back/d/1\"";
    prints(&mount, script, "750\n600\n");
}

#[test]
fn programs_run_from_the_mount() {
    let Some(mount) = Mount::new() else { return };
    prints(&mount, "printf '#!/bin/sh\\necho ran\\n' > script; chmod +x script; ./script", "ran\n");
    prints(&mount, "cp /bin/echo binary; ./binary from here", "from here\n");
}

#[test]
fn python_libraries_write_whole_values() {
    let Some(mount) = Mount::new() else { return };
    let script = "import json, os, pathlib, shutil, tempfile\n\
                  json.dump({'a': 1}, open('j', 'w'))\n\
                  p = pathlib.Path('p'); p.write_text('text'); assert p.read_text() == 'text'\n\
                  shutil.copy('p', 'copy'); shutil.copy2('p', 'copy2'); shutil.move('copy', 'moved')\n\
                  fd, name = tempfile.mkstemp(dir='.'); os.write(fd, b'atomic'); os.fsync(fd); os.close(fd); os.replace(name, 'atomic')\n\
                  with open('u', 'x') as f: print('line', file=f)\n\
                  with open('u', 'r+') as f: f.seek(0, 2); f.write('more')\n\
                  print(sorted(os.listdir('.')), open('u').read(), open('atomic').read(), json.load(open('j')))";
    let expected = "['atomic', 'copy2', 'j', 'moved', 'p', 'u'] line\nmore atomic {'a': 1}\n";
    assert_eq!(mount.python(script).ok(), expected);
}

#[test]
fn node_reads_and_writes() {
    let Some(mount) = Mount::new() else { return };
    let script = "const fs = require('fs'); fs.writeFileSync('a', 'one'); fs.appendFileSync('a', ' two');\n\
                  fs.mkdirSync('d/e', {recursive: true}); fs.renameSync('a', 'd/e/b'); fs.copyFileSync('d/e/b', 'c');\n\
                  const s = fs.createWriteStream('s'); s.write('x'.repeat(100000)); s.end('y'); s.on('close', () => \n\
                  console.log(fs.readFileSync('c', 'utf8'), fs.statSync('s').size, fs.readdirSync('.').join()));";
    assert_eq!(mount.run(mount.command(&["node", "-e", script])).ok(), "one two 100001 c,d,s\n");
}

#[test]
fn the_store_is_plain_files_once_unmounted() {
    let Some(mut mount) = Mount::new() else { return };
    mount.by("a", "mkdir d; echo one > d/k; echo '{}' > __handoff.json; head -c 3000000 /dev/zero > big").ok();
    let before = mount.bash("find . -type f -exec sha256sum {} + | sort").ok();
    mount.unmount();
    let script = "cd \"$STORE/$SESSION\" && find . -type f -not -path '*/.agent_state_meta/*' -not -path './.baton/*' -exec sha256sum {} + | sort";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script]).env("STORE", mount.store()).env("SESSION", harness::SESSION);
    assert_eq!(mount.run(command).ok(), before);
    assert_eq!(fs::read_to_string(mount.stored("d/k")).expect("read"), "one\n");
    assert_eq!(fs::read_dir(mount.point()).expect("ls").count(), 0);
    mount.again(&[]);
    assert_eq!(mount.bash("find . -type f -exec sha256sum {} + | sort").ok(), before);
}
