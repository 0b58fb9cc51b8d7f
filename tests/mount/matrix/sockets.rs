//! A descriptor in flight in a socket is in nobody's table, and who takes it out there need not be a descendant of anyone
//! we know: what the first of the limits in SEMANTICS means, exactly.

use super::case::{Program, case, run};
use crate::harness::Mount;

const OLD: &[(&str, &str)] = &[("k", "old\n")];

/// A script that can `send` a descriptor to whoever calls `receive`.
macro_rules! with_sockets {
    ($script:literal) => {
        concat!(
            "import os, socket, time\na, b = socket.socketpair()\n",
            "def send(fd): socket.send_fds(a, [b'x'], [fd])\n",
            "def receive(): return socket.recv_fds(b, 1, 1)[1][0]\n",
            "def opened(): return os.open('k', os.O_WRONLY | os.O_TRUNC)\n",
            $script
        )
    };
}

/// A child opens, writes, sends and goes; the parent takes it out of the socket and writes the rest.
const SENT_TO_THE_PARENT: &str = with_sockets!(
    "if os.fork() == 0:\n fd = opened(); os.write(fd, b'half '); send(fd); os._exit(0)\n\
     os.wait(); time.sleep(0.1); fd = receive(); os.write(fd, b'whole'); os.close(fd)"
);
const SENT_WITH_NOTHING_WRITTEN: &str = with_sockets!(
    "if os.fork() == 0:\n fd = opened(); send(fd); os._exit(0)\n\
     os.wait(); time.sleep(0.1); fd = receive(); os.write(fd, b'whole'); os.close(fd)"
);
/// The same where the child is killed: what it wrote is dropped, and the rest alone is no value.
const SENT_AND_KILLED: &str = with_sockets!(
    "for flags in 0, os.O_CREAT:\n pid = os.fork()\n if pid == 0:\n  fd = os.open('new' if flags else 'k', os.O_WRONLY | os.O_TRUNC | flags); os.write(fd, b'half'); send(fd); os.kill(os.getpid(), 9)\n \
     os.waitpid(pid, 0); fd = receive()\n for work in lambda: os.write(fd, b'rest'), lambda: os.ftruncate(fd, 2), lambda: os.close(fd):\n  \
     try: work(); print('done')\n  except OSError as e: print(e.errno)"
);
/// The same where the parent has taken it out before the child closes.
const TAKEN_BY_THE_PARENT: &str = with_sockets!(
    "r, w = os.pipe()\nif os.fork() == 0:\n fd = opened(); os.write(fd, b'half '); send(fd); os.read(r, 1); os._exit(0)\n\
     fd = receive(); os.write(w, b'x'); os.wait(); time.sleep(0.1); os.write(fd, b'whole'); os.close(fd)"
);
/// The parent opens, writes and sends; its child has it already, or takes it out later.
const TAKEN_BY_A_CHILD: &str = with_sockets!(
    "r, w = os.pipe()\nif os.fork() == 0:\n fd = receive(); os.write(w, b'x'); time.sleep(0.2); os.write(fd, b'whole'); os._exit(0)\n\
     fd = opened(); os.write(fd, b'half '); send(fd); os.read(r, 1); os.close(fd); os.wait()"
);
const IN_FLIGHT_TO_A_CHILD: &str = with_sockets!(
    "r, w = os.pipe()\nif os.fork() == 0:\n os.read(r, 1); fd = receive(); os.write(fd, b'whole'); os._exit(0)\n\
     fd = opened(); os.write(fd, b'half '); send(fd); os.close(fd); time.sleep(0.1); os.write(w, b'x'); os.wait()"
);
/// Whoever took it out has written before the sender closes: it is known then.
const TAKEN_AND_WRITTEN: &str = with_sockets!(
    "r, w = os.pipe()\nif os.fork() == 0:\n fd = opened(); os.write(fd, b'half '); send(fd); os.read(r, 1); os._exit(0)\n\
     fd = receive(); os.write(fd, b'and '); os.write(w, b'x'); os.wait(); time.sleep(0.1); os.write(fd, b'whole'); os.close(fd)"
);

// C1, Limits
#[test]
fn what_is_written_when_a_descriptor_is_in_flight_becomes_a_version() {
    let Some(mount) = Mount::new() else { return };
    let half: &[_] = &[("k", "put $", "half "), ("k", "put $", "half whole")];
    for script in [SENT_TO_THE_PARENT, TAKEN_BY_THE_PARENT, IN_FLIGHT_TO_A_CHILD] {
        run(&mount, Program::Python, &[case(OLD, script, half)]);
    }
    let empty: &[_] = &[("k", "put $", ""), ("k", "put $", "whole")];
    run(&mount, Program::Python, &[case(OLD, SENT_WITH_NOTHING_WRITTEN, empty)]);
}

// C1
#[test]
fn a_descriptor_that_a_descendant_or_a_writer_has_from_a_socket_is_waited_for() {
    let Some(mount) = Mount::new() else { return };
    run(
        &mount,
        Program::Python,
        &[
            case(OLD, TAKEN_BY_A_CHILD, &[("k", "put $", "half whole")]),
            case(OLD, TAKEN_AND_WRITTEN, &[("k", "put $", "half and whole")]),
        ],
    );
}

// C6, E2, Limits
#[test]
fn who_has_a_descriptor_of_what_was_dropped_writes_no_rest_of_it() {
    let Some(mount) = Mount::new() else { return };
    mount.write("k", "old value");
    let refused = format!("{}\n", libc::EIO).repeat(6);
    assert_eq!(mount.python(SENT_AND_KILLED).ok(), refused);
    assert_eq!((mount.read("k").as_str(), mount.names("")), ("old value", vec!["k".to_owned()]));
}
