//! Who writes is not read anew at every call: what was seen holds while nothing has changed. These change it at once.

use crate::harness::{self, Mount};

/// The same program with the same arguments and another declaration, with a file that was opened before: only the exec
/// tells the two writers apart.
const EXECS_ITSELF: &str = r#"
import os, sys
def put(key, text):
    with open(key, 'w') as f:
        f.write(text)
if os.environ['BATON_WRITER_ID'] == 'before':
    put('first', 'x')
    fd = os.open('held', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.set_inheritable(fd, True)
    put('second', 'x')
    os.execve(sys.executable, sys.orig_argv, {**os.environ, 'BATON_WRITER_ID': 'after', 'FD': str(fd)})
put('third', 'x')
os.write(int(os.environ['FD']), b'x')
os.close(int(os.environ['FD']))
"#;

#[test]
fn a_program_that_execs_itself_with_another_declaration_is_the_other_writer_at_once() {
    let Some(mount) = Mount::new() else { return };
    for key in ["first", "second", "third", "held"] {
        mount.write(key, "there before");
    }
    for _ in 0..5 {
        let mut command = mount.command(&[harness::python(), "-c", EXECS_ITSELF]);
        command.env("BATON_WRITER_ID", "before");
        mount.run(command).ok();
        let writers = ["first", "second", "third", "held"].map(|key| mount.writer_of(key));
        assert_eq!(writers, ["before", "before", "after", "after"]);
    }
}

/// A child that declares nothing, and writes before and after its parent has become another program.
const PARENT_EXECS: &str = r#"
import os
done, go, last = os.pipe(), os.pipe(), os.pipe()
if os.fork() == 0:
    for fd in done[1], go[0], last[1]:
        os.set_inheritable(fd, True)
    child = '''
import os, sys
done, go, last = map(int, sys.argv[1:])
def put(key):
    with open(key, 'w') as f:
        f.write('x')
put('first')
os.write(done, b'x')
os.read(go, 1)
put('second')
os.write(last, b'x')
'''
    env = {name: value for name, value in os.environ.items() if not name.startswith('BATON_')}
    os.execve(os.environ['PYTHON'], ['python', '-c', child, str(done[1]), str(go[0]), str(last[1])], env)
os.read(done[0], 1)
os.set_inheritable(go[1], True)
os.set_inheritable(last[0], True)
script = f'printf x >&{go[1]}; head -c 1 <&{last[0]}'
os.execve('/bin/sh', ['sh', '-c', script], {**os.environ, 'BATON_WRITER_ID': 'after'})
"#;

#[test]
fn a_child_that_declares_nothing_has_what_its_parent_declares_after_an_exec() {
    let Some(mount) = Mount::new() else { return };
    for _ in 0..5 {
        let mut command = mount.command(&[harness::python(), "-c", PARENT_EXECS]);
        command.env("BATON_WRITER_ID", "before").env("PYTHON", harness::python());
        mount.run(command).ok();
        assert_eq!(["first", "second"].map(|key| mount.writer_of(key)), ["before", "after"]);
    }
}

#[test]
fn a_program_that_follows_another_in_the_same_process_writes_as_itself() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "there before");
    let script = "export BATON_WRITER_ID=one; exec bash -c 'for n in 1 2 3; do echo $n > k; done; \
                  BATON_WRITER_ID=two exec bash -c \"echo 4 > k; BATON_WRITER_ID=three exec bash -c \\\"echo 5 > k\\\"\"'";
    mount.bash(script).ok();
    let writers: Vec<_> = mount.log().iter().filter(|line| line["key"] == "k").cloned().collect();
    let writers: Vec<_> = writers.iter().map(|line| line["writer"]["writer_id"].as_str().unwrap_or("-")).collect();
    assert_eq!(writers[1..], ["one", "one", "one", "two", "three"]);
}
