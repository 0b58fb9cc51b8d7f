//! Promise 1 from outside: somebody polling a key while each kind of program writes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{self, Mount};

/// Rounds per kind of writer, half of them on new keys: 1,000 and more in all.
fn rounds() -> usize {
    if harness::long() { 1000 } else { 110 }
}

/// What a key may be seen as in one round: as it was, or as it becomes.
#[derive(Debug)]
struct Round {
    dir: PathBuf,
    key: String,
    before: Option<String>,
    after: String,
}

/// The first half of the rounds writes a new key each; the second rewrites one key with values of changing length.
fn round(dir: PathBuf, n: usize, total: usize) -> Round {
    let value = |n: usize| format!("value-{n}-{}\n", "x".repeat(n * 37 % 400));
    if n < total / 2 {
        return Round { dir, key: format!("new-{n}"), before: None, after: "hi\n".into() };
    }
    Round { dir, key: "again".into(), before: (n > total / 2).then(|| value(n - 1)), after: value(n) }
}

/// Runs `words`, a program that writes the value of each line `KEY VALUE` of its input, and polls the key as fast as
/// it can until the value is there.
fn watch(words: &[&str]) {
    let Some(mount) = Mount::new() else { return };
    let mut command = mount.command(words);
    command.stdin(Stdio::piped());
    let mut writer = mount.spawn(command);
    let total = rounds();
    for n in 0..total {
        let round = round(mount.path(""), n, total);
        assert!(!look(&round), "{} had its value before it was written", round.key);
        writer.send(&format!("{} {}", round.key, round.after.trim_end()));
        let until = Instant::now() + Duration::from_secs(30);
        while !look(&round) {
            assert!(Instant::now() < until && !writer.ended(), "{} was never written", round.key);
        }
    }
    writer.wait().ok();
    assert_eq!(mount.versions("again").len(), total - total / 2, "each write of a key made one version");
}

/// One look by listing, stat and read; true when the new value was read. Panics on anything no commit made.
fn look(round: &Round) -> bool {
    let path = round.dir.join(&round.key);
    let listed = fs::read_dir(&round.dir).expect("the session").any(|e| e.expect("an entry").file_name() == *round.key);
    let size = fs::metadata(&path).ok().map(|m| m.len());
    let value = read(&path);
    let sizes = [round.before.as_ref().map(|v| v.len() as u64), Some(round.after.len() as u64)];
    assert!(sizes.contains(&size), "stat of {} showed {size:?}, not one of {sizes:?}", round.key);
    let values = [round.before.as_deref(), Some(&*round.after)];
    assert!(values.contains(&value.as_deref()), "{} held {value:?}, not one of {values:?}", round.key);
    let stays = !listed || (size.is_some() && value.is_some());
    assert!(stays, "{} was listed, then stat said {size:?} and read {value:?}", round.key);
    assert!(listed || round.before.is_none(), "{} vanished from the listing while it was rewritten", round.key);
    value.as_deref() == Some(&*round.after)
}

fn read(path: &Path) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(value) => Some(value),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("reading {}: {e}", path.display()),
    }
}

#[test]
fn a_bash_redirection_is_never_seen_half() {
    watch(&["bash", "-c", r#"while read -r k v; do echo "$v" > "$k"; done"#]);
}

#[test]
fn a_dash_redirection_is_never_seen_half() {
    watch(&["dash", "-c", r#"while read -r k v; do echo "$v" > "$k"; done"#]);
}

#[test]
fn bin_echo_is_never_seen_half() {
    watch(&["bash", "-c", r#"while read -r k v; do /bin/echo "$v" > "$k"; done"#]);
}

#[test]
fn a_group_of_commands_is_never_seen_half() {
    watch(&["bash", "-c", r#"while read -r k v; do { printf %s "${v:0:1}"; /bin/echo "${v:1}"; } > "$k"; done"#]);
}

#[test]
fn cp_is_never_seen_half() {
    watch(&["bash", "-c", r#"while read -r k v; do echo "$v" > "$TMP/v"; cp "$TMP/v" "$k"; done"#]);
}

#[test]
fn tee_is_never_seen_half() {
    watch(&["bash", "-c", r#"while read -r k v; do echo "$v" | tee "$k" > "$TMP/out"; done"#]);
}

#[test]
fn python_open_and_write_is_never_seen_half() {
    let script = "import sys\nfor line in sys.stdin:\n k, v = line.split()\n with open(k, 'w') as f:\n  \
                  f.write(v[:1])\n  f.flush()\n  f.write(v[1:] + '\\n')\n";
    watch(&[harness::python(), "-c", script]);
}

#[test]
fn a_python_subprocess_with_its_output_in_a_key_is_never_seen_half() {
    let script = "import subprocess, sys\nfor line in sys.stdin:\n k, v = line.split()\n \
                  with open(k, 'w') as f:\n  subprocess.run(['/bin/echo', v], stdout=f, check=True)\n";
    watch(&[harness::python(), "-c", script]);
}

const NODE_LINES: &str = "const fs = require('fs'); const lines = require('readline').createInterface(process.stdin);";

#[test]
fn node_write_file_sync_is_never_seen_half() {
    let body = "lines.on('line', l => { const [k, v] = l.split(' '); fs.writeFileSync(k, v + '\\n'); });";
    watch(&["node", "-e", &format!("{NODE_LINES}{body}")]);
}

#[test]
fn node_asynchronous_writes_are_never_seen_half() {
    let body = "(async () => { for await (const l of lines) { const [k, v] = l.split(' ');\n\
                const f = await fs.promises.open(k, 'w'); await f.write(v.slice(0, 1)); await f.write(v.slice(1) + '\\n');\n\
                await f.close(); } })();";
    watch(&["node", "-e", &format!("{NODE_LINES}{body}")]);
}
