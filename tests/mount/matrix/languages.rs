//! C1 to C9 by what programming languages do with files.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::case::{ANY, BASH, Case, Program, case, run};
use crate::harness::Mount;

const OLD: &[(&str, &str)] = &[("k", "old\n")];
const NODE: Program = Program::Given(&["node", "-e"], "node");

#[track_caller]
fn all(program: Program, cases: &[Case]) {
    let Some(mount) = Mount::new() else { return };
    run(&mount, program, cases);
}

// C1, C4
#[test]
fn pythons_open_modes_make_one_version() {
    all(
        Program::Python,
        &[
            case(OLD, "with open('k', 'w') as f: f.write('a'); f.flush(); f.write('b')", &[("k", "put $", "ab")]),
            case(&[], "with open('k', 'x') as f: f.write('a'); f.flush(); f.write('b')", &[("k", "put $", "ab")]),
            case(OLD, "with open('k', 'a') as f: f.write('a')", &[("k", "append $", "old\na")]),
            case(
                OLD,
                "with open('k', 'r+') as f: f.write('NEW'); f.flush(); f.seek(0, 2); f.write('more')",
                &[("k", "put $", "NEW\nmore")],
            ),
            case(OLD, "with open('k', 'r+') as f: f.read(); f.seek(1); f.truncate()", &[("k", "put $", "o")]),
            case(
                OLD,
                "with open('k', 'w+') as f: f.write('ab'); f.seek(0); assert f.read() == 'ab'; f.write('c')",
                &[("k", "put $", "abc")],
            ),
            case(OLD, "open('k', 'r+').close(); open('k', 'a').close(); open('k').close()", &[]),
            case(OLD, "open('k', 'w')", &[("k", "put $", "")]),
            case(OLD, "f = open('k', 'w'); print('a', file=f)", &[("k", "put $", "a\n")]),
            case(
                OLD,
                "f = open('k', 'w'); print('a', file=f); del f; open('k', 'a').write('b')",
                &[("k", "put $", "a\n"), ("k", "append $", "a\nb")],
            ),
            case(
                OLD,
                "import os; f = open('k', 'w'); print('a', file=f, flush=True); os._exit(0)",
                &[("k", "put $", "a\n")],
            ),
            case(OLD, "import os; os.truncate('k', 1)", &[("k", "put $", "o")]),
            case(OLD, "import pathlib; pathlib.Path('k').write_text('a')", &[("k", "put $", "a")]),
            case(OLD, "import sys; sys.stdout = open('k', 'w'); print('a'); print('b')", &[("k", "put $", "a\nb\n")]),
        ],
    );
}

// C1, C10
#[test]
fn pythons_ways_to_replace_a_file_never_show_a_half() {
    all(
        Program::Python,
        &[
            case(
                OLD,
                "import os\nwith open('t', 'w') as f: f.write('a')\nos.replace('t', 'k')",
                &[("t", "put $", "a"), ("k", "rename $", "a")],
            ),
            case(
                OLD,
                "import os\nwith open('t', 'w') as f: f.write('a'); f.flush(); os.replace('t', 'k'); f.write('b')",
                &[("k", "put $", "ab")],
            ),
            case(
                OLD,
                "import os, tempfile\nfd, t = tempfile.mkstemp(dir='.'); os.write(fd, b'a'); os.fsync(fd); os.close(fd); os.rename(t, 'k')",
                &[("tmp*", "put $", "a"), ("k", "rename $", "a")],
            ),
            case(
                OLD,
                "import tempfile\nwith tempfile.NamedTemporaryFile('w', dir='.') as f: f.write('a'); f.flush()",
                &[("tmp*", "put $", "a"), ("tmp*", "delete $", "")],
            ),
            case(
                OLD,
                "import fileinput\nfor line in fileinput.input('k', inplace=True): print(line.upper(), end='')",
                &[("k.bak", "rename $", "old\n"), ("k.bak", "delete $", ""), ("k", "put $", "OLD\n")],
            ),
            case(
                OLD,
                "import shutil; shutil.copyfile('k', 'j'); shutil.copy2('j', 'k2')",
                &[("j", "put $", "old\n"), ("k2", "put $", "old\n")],
            ),
            case(OLD, "import shutil; shutil.move('k', 'j')", &[("j", "rename $", "old\n")]),
            case(OLD, "import json; json.dump({'a': [1, 2]}, open('k', 'w'))", &[("k", "put $", "{\"a\": [1, 2]}")]),
            case(
                OLD,
                "import logging; logging.basicConfig(filename='k', format='%(message)s'); logging.error('a')",
                &[("k", "append $", "old\na\n")],
            ),
        ],
    );
}

// C1, C2
#[test]
fn pythons_children_and_threads_make_one_version_together() {
    all(
        Program::Python,
        &[
            case(
                OLD,
                "import subprocess\nwith open('k', 'w') as f: subprocess.run(['echo', 'a'], stdout=f)",
                &[("k", "put echo", "a\n")],
            ),
            case(
                OLD,
                "import subprocess\nf = open('k', 'w'); p = subprocess.Popen(['bash', '-c', 'sleep 0.1; echo a'], stdout=f); f.close(); p.wait()",
                &[("k", "put bash", "a\n")],
            ),
            case(
                OLD,
                "import subprocess\nf = open('k', 'w'); f.write('a\\n'); f.flush(); subprocess.Popen(['sleep', '0.2'], stdout=f); f.close()",
                &[("k", "put $", "a\n")],
            ),
            case(
                OLD,
                "import subprocess\nf = open('k', 'w'); subprocess.Popen(['bash', '-c', 'sleep 0.1; echo b'], stdout=f); f.write('a\\n')",
                &[("k", "put bash", "a\nb\n")],
            ),
            case(
                OLD,
                "import os, subprocess\nf = open('k', 'w'); os.write(f.fileno(), b'a\\n'); [subprocess.run(['echo', x], stdout=f) for x in 'bc']; f.write('d\\n')",
                &[("k", "put $", "a\nb\nc\nd\n")],
            ),
            case(
                OLD,
                "import os\nos.waitpid(os.posix_spawn('/bin/echo', ['echo', 'a'], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, 'k', os.O_WRONLY | os.O_TRUNC, 0)]), 0)",
                &[("k", "put echo", "a\n")],
            ),
            case(
                OLD,
                "import os\nf = open('k', 'w'); os.set_inheritable(f.fileno(), True); f.write('a\\n'); f.flush()\nos.execvp('bash', ['bash', '-c', f'sleep 0.05; echo b >&{f.fileno()}'])",
                &[("k", "put bash", "a\nb\n")],
            ),
            case(
                OLD,
                "import os\nf = open('k', 'w'); f.write('a\\n'); f.flush(); os.execvp('true', ['true'])",
                &[("k", "put $", "a\n")],
            ),
            case(
                OLD,
                "import os, threading\nfd = os.open('k', os.O_WRONLY | os.O_TRUNC)\nts = [threading.Thread(target=os.pwrite, args=(fd, b'%d' % i, i)) for i in range(8)]\n[t.start() for t in ts]; [t.join() for t in ts]",
                &[("k", "put $", "01234567")],
            ),
            case(
                OLD,
                "import threading\ndef w(i):\n with open(str(i), 'w') as f: f.write('a'); f.flush(); f.write('b')\nts = [threading.Thread(target=w, args=(i,)) for i in range(4)]\n[t.start() for t in ts]; [t.join() for t in ts]",
                &[("0", "put $", "ab"), ("1", "put $", "ab"), ("2", "put $", "ab"), ("3", "put $", "ab")],
            ),
            case(
                OLD,
                "import multiprocessing, os\nfd = os.open('k', os.O_WRONLY | os.O_TRUNC)\nps = [multiprocessing.Process(target=os.pwrite, args=(fd, b'%d' % i, i)) for i in range(4)]\n[p.start() for p in ps]; os.close(fd); [p.join() for p in ps]",
                &[("k", "put $", "0123")],
            ),
        ],
    );
}

// C1, C7
#[test]
fn nodes_ways_to_write_make_one_version() {
    all(
        NODE,
        &[
            case(OLD, "fs.writeFileSync('k', 'a')", &[("k", "put $", "a")]),
            case(&[], "fs.writeFile('k', 'a', e => { if (e) throw e; })", &[("k", "put $", "a")]),
            case(OLD, "fs.promises.writeFile('k', 'a')", &[("k", "put $", "a")]),
            case(OLD, "fs.appendFileSync('k', 'a')", &[("k", "append $", "old\na")]),
            case(
                OLD,
                "const s = fs.createWriteStream('k'); s.write('a'); setTimeout(() => s.end('b'), 50)",
                &[("k", "put $", "ab")],
            ),
            case(
                OLD,
                "(async () => { const f = await fs.promises.open('k', 'w');\nawait Promise.all([...'01234567'].map((c, i) => f.write(c, i))); await f.close(); })()",
                &[("k", "put $", "01234567")],
            ),
            case(
                OLD,
                "for (const k of 'abcd') fs.promises.writeFile(k, k)",
                &[("a", "put $", "a"), ("b", "put $", "b"), ("c", "put $", "c"), ("d", "put $", "d")],
            ),
            case(
                OLD,
                "fs.writeFileSync('t', 'a'); fs.renameSync('t', 'k')",
                &[("t", "put $", "a"), ("k", "rename $", "a")],
            ),
            case(
                OLD,
                "const f = fs.openSync('k', 'w'); fs.writeSync(f, 'a\\n');\nrequire('child_process').spawn('bash', ['-c', 'sleep 0.1; echo b'], {stdio: ['ignore', f, 'ignore']}); fs.closeSync(f)",
                &[("k", "put bash", "a\nb\n")],
            ),
            case(OLD, "const f = fs.openSync('k', 'w'); fs.writeSync(f, 'a'); process.exit(0)", &[("k", "put $", "a")]),
            case(
                OLD,
                "const { Worker } = require('worker_threads'); const f = fs.openSync('k', 'w');\nconst w = i => new Promise(done => new Worker(`require('fs').writeSync(${f}, '${i}', ${i})`, {eval: true}).on('exit', done));\n\
                   Promise.all([w(0), w(1)]).then(() => fs.closeSync(f))",
                &[("k", "put $", "01")],
            ),
        ],
    );
}

const C_PROGRAM: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static int fd;
static void *goes_on(void *unused) {
    usleep(100000);
    write(fd, "b\n", 2);
    usleep(50000);
    write(fd, "c\n", 2);
    _exit(0);
}
int main(int argc, char **argv) {
    FILE *f;
    pthread_t thread;
    if (!strcmp(argv[1], "stdio")) {
        f = fopen("k", "w");
        setvbuf(f, 0, _IOFBF, 64);
        for (int i = 0; i < 100; i++) fprintf(f, "%d\n", i);
        return fclose(f);
    }
    if (!strcmp(argv[1], "unclosed")) return fprintf(fopen("k", "w"), "a\n") != 2;
    if (!strcmp(argv[1], "freopen")) { freopen("k", "w", stdout); puts("a"); fflush(stdout); puts("b"); return 0; }
    if (!strcmp(argv[1], "append")) { f = fopen("k", "a"); fputs("a\n", f); return fclose(f); }
    if (!strcmp(argv[1], "vfork")) {
        fd = open("k", O_WRONLY | O_TRUNC);
        dup2(fd, 1);
        write(1, "a\n", 2);
        if (!vfork()) { execlp("bash", "bash", "-c", "sleep 0.1; /bin/echo b", (char *)0); _exit(1); }
        close(fd);
        close(1);
        return wait(0) < 0;
    }
    if (!strcmp(argv[1], "thread")) {
        fd = open("k", O_WRONLY | O_TRUNC);
        write(fd, "a\n", 2);
        close(dup(fd));
        pthread_create(&thread, 0, goes_on, 0);
        close(dup(fd));
        syscall(SYS_exit, 0);
    }
    return 2;
}
"#;

// C1
#[test]
fn a_c_program_makes_one_version() {
    let Some(mount) = Mount::new() else { return };
    let source = mount.scratch().join("program.c");
    fs::write(source, C_PROGRAM).expect("the source");
    mount.bash("cc -w -pthread -o \"$TMP/program\" \"$TMP/program.c\"").ok();
    run(
        &mount,
        BASH,
        &[
            case(OLD, "$TMP/program stdio; seq 0 99 | cmp - k", &[("k", "put program", ANY)]),
            case(OLD, "$TMP/program unclosed", &[("k", "put program", "a\n")]),
            case(OLD, "$TMP/program freopen", &[("k", "put program", "a\nb\n")]),
            case(OLD, "$TMP/program append", &[("k", "append program", "old\na\n")]),
            case(OLD, "$TMP/program vfork", &[("k", "put echo", "a\nb\n")]),
            case(OLD, "$TMP/program thread", &[("k", "put program", "a\nb\nc\n")]),
        ],
    );
}

// C1, C5
#[test]
fn rusts_ways_to_write_make_one_version() {
    fn whole(dir: &Path) {
        fs::write(dir.join("k"), "a").expect("write");
    }
    fn buffered(dir: &Path) {
        let mut file = BufWriter::with_capacity(1, File::create(dir.join("k")).expect("create"));
        write!(file, "a").and_then(|()| write!(file, "b")).expect("write");
    }
    fn synced(dir: &Path) {
        let mut file = OpenOptions::new().write(true).open(dir.join("k")).expect("open");
        file.write_all(b"NEW").expect("write");
        file.sync_all().expect("fsync");
    }
    fn appended(dir: &Path) {
        let mut file = OpenOptions::new().append(true).open(dir.join("k")).expect("open");
        file.write_all(b"a").expect("write");
    }
    fn shared(dir: &Path) {
        let file = File::create(dir.join("k")).expect("create");
        let mut other = file.try_clone().expect("dup");
        std::thread::spawn(move || other.write_all(b"a").expect("write")).join().expect("a thread");
        (&file).write_all(b"b").expect("write");
    }
    let Some(mount) = Mount::new() else { return };
    // On a key that is there: the watcher is of this process too, and would be shown a new name before its commit.
    run(&mount, Program::Here(whole), &[case(OLD, "", &[("k", "put $", "a")])]);
    run(&mount, Program::Here(buffered), &[case(OLD, "", &[("k", "put $", "ab")])]);
    run(&mount, Program::Here(synced), &[case(OLD, "", &[("k", "put $", "NEW\n")])]);
    run(&mount, Program::Here(appended), &[case(OLD, "", &[("k", "append $", "old\na")])]);
    run(&mount, Program::Here(shared), &[case(OLD, "", &[("k", "put $", "ab")])]);
}
