//! The ways to start a writer. What is declared outside a way is never what is to be recorded inside it.

use serde_json::Value;

use super::{Way, told, way};

/// Somebody else's declaration around a writer that has one of its own.
pub(super) const WAYS: &[Way] = &[
    // Shells.
    told("BATON_WRITER_ID=a bash -c 'echo $$ > k'", "a"),
    told("BATON_WRITER_ID=a dash -c 'echo $$ > k'", "a"),
    way("BATON_WRITER_ID=a /bin/echo x > k", "a", "echo"),
    way("export BATON_WRITER_ID=a; /bin/echo x > k", "a", "echo"),
    told("BATON_WRITER_ID=other bash -c 'BATON_WRITER_ID=a bash -c \"echo \\$\\$ > k\"; true'", "a"),
    told("BATON_WRITER_ID=a bash -c 'env -u BATON_WRITER_ID bash -c \"echo \\$\\$ > k\"; true'", "a"),
    told("BATON_WRITER_ID=other bash -c 'BATON_WRITER_ID=a bash -c \"env -i bash -c \\\"echo \\\\\\$\\\\\\$ > k\\\"; true\"; true'", "a"),
    told("BATON_WRITER_ID=a bash -c '(echo $BASHPID > k)'", "a"),
    told("BATON_WRITER_ID=a bash -c 'echo $BASHPID > k & wait'", "a"),
    told("BATON_WRITER_ID=a bash -c 'true | { echo $BASHPID > k; }'", "a"),
    told("BATON_WRITER_ID=a bash -c 'f() { echo $BASHPID > k; }; coproc f; wait'", "a"),
    told("BATON_WRITER_ID=a bash -c 'trap \"echo \\$\\$ > k\" EXIT'", "a"),
    told("BATON_WRITER_ID=other bash -c 'exec env BATON_WRITER_ID=a bash -c \"echo \\$\\$ > k\"'", "a"),
    told("BATON_WRITER_ID=other bash -c 'exec > k; BATON_WRITER_ID=a exec bash -c \"echo \\$\\$\"'", "a"),
    way("BATON_WRITER_ID=other bash -c '{ /bin/echo 1; BATON_WRITER_ID=b /bin/echo 2; BATON_WRITER_ID=a /bin/echo 3; } > k'", "a", "echo")
        .and(|line| names(line).contains(&"bash") && line["others"].as_array().is_some_and(|others| others.len() >= 3)),
    way("BATON_WRITER_ID=other bash -c 'cat < <(echo x) | BATON_WRITER_ID=a tee k > /dev/null'", "a", "tee"),
    way("BATON_WRITER_ID=a bash -c 'cat > k <<< x'", "a", "cat"),
    // A name given to what a FIFO brings: who writes the key is the writer, not who feeds it.
    told(
        "p=$TMP/fifo-$$; mkfifo $p; BATON_WRITER_ID=a bash -c \"read x < $p; echo \\$\\$ > k\" & BATON_WRITER_ID=other bash -c \"echo x > $p\"; wait",
        "a",
    ),
    // What only the program itself knows is declared for those that it starts.
    told("bash -c 'export BATON_WRITER_ID=hidden; echo $$ > k'", "").of_nobody(),
    told("bash -c 'export BATON_WRITER_ID=a; bash -c \"echo \\$\\$ > k\"; true'", "a"),
    // Nothing declared at all.
    told("bash -c 'echo $$ > k'", "").of_nobody(),
    told("env -i /bin/sh -c 'echo $$ > k'", "").of_nobody(),
    told("BATON_WRITER_ID=' ' bash -c 'echo $$ > k'", "").of_nobody(),
    // Wrappers.
    told("env BATON_WRITER_ID=a sh -c 'echo $$ > k'", "a"),
    told("BATON_WRITER_ID=other timeout 20 env BATON_WRITER_ID=a sh -c 'echo $$ > k'", "a"),
    told("BATON_WRITER_ID=a nice stdbuf -o0 sh -c 'echo $$ > k'", "a"),
    told("BATON_WRITER_ID=a flock \"$TMP/lock-$$\" sh -c 'echo $$ > k'", "a"),
    told("BATON_WRITER_ID=a setsid --wait sh -c 'echo $$ > k'", "a"),
    told("\"$BATONFS\" run --writer-id a -- sh -c 'echo $$ > k'", "a"),
    told("BATON_WRITER_ID=other \"$BATONFS\" run --writer-id a -- env -i sh -c 'echo $$ > k; true'", "").of_nobody(),
    told("BATON_WORKER_ID=a sh -c 'echo $$ > k'", "a"),
    told("BATON_STAGE_ID=a sh -c 'echo $$ > k'", "a").and(|line| line["writer"]["stage_id"] == "a"),
    // Those that outlive who started them.
    told("BATON_WRITER_ID=a nohup setsid sh -c 'sleep 0.3; echo $$ > k' > /dev/null 2>&1 &", "a"),
    told("BATON_WRITER_ID=a bash -c '(setsid sh -c \"sleep 0.3; echo \\$\\$ > k\" &)'", "a"),
    told("bash -c '(env -i setsid sh -c \"sleep 0.3; echo \\$\\$ > k\" &)'", "").of_nobody(),
    told("(setsid env -u BATON_WRITER_ID sh -c 'exec > k; sleep 0.3; BATON_WRITER_ID=a exec sh -c \"echo \\$\\$\"' &)", "a"),
    // Other users.
    told("BATON_WRITER_ID=a setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'echo $$ > k'", "a")
        .and(|line| line["process"]["uid"] == 65534 && line["process"]["gid"] == 65534),
    told("BATON_WRITER_ID=a su -s /bin/sh nobody -c 'echo $$ > k'", "a").and(|line| line["process"]["uid"] == 65534),
    told("BATON_WRITER_ID=other sudo -u nobody BATON_WRITER_ID=a sh -c 'echo $$ > k'", "a")
        .and(|line| line["process"]["uid"] == 65534),
    // sudo takes the variables away; who calls it is the nearest that declares anything.
    told("BATON_WRITER_ID=a sudo -u nobody sh -c 'echo $$ > k'", "a").and(|line| line["process"]["uid"] == 65534),
    // Namespaces: the id is the one of the mount's own.
    way("BATON_WRITER_ID=a unshare --pid --fork bash -c 'echo $$ > k'", "a", "bash"),
    told("BATON_WRITER_ID=a unshare --mount --uts --ipc --net sh -c 'echo $$ > k'", "a"),
    told("BATON_WRITER_ID=a unshare --user --map-root-user sh -c 'echo $$ > k'", "a"),
    // Writer views: the path says it, whatever the environment does.
    told("BATON_WRITER_ID=other bash -c 'echo $$ > \"$MNT/.baton/as/a/$SESSION/${PWD##*/}/k\"'", "a"),
    told(
        "BATON_WRITER_ID=other $PYTHON -c 'import os; os.chdir(os.environ[\"MNT\"] + \"/.baton/as/a/s/\" + os.path.basename(os.getcwd())); open(\"k\", \"w\").write(str(os.getpid()))'",
        "a",
    ),
    told(
        "export BATON_WRITER_ID=other; unshare --mount bash -c 'd=$(mktemp -d); mount --bind \"$MNT/.baton/as/a\" $d; echo $$ > $d/$SESSION/${PWD##*/}/k; umount $d; rmdir $d'",
        "a",
    ),
    way(
        "unshare --mount --pid --fork --mount-proc env -i MNT=\"$MNT\" DIR=\"${PWD##*/}\" bash -c 'd=$(mktemp -d); mount --bind \"$MNT/.baton/as/a\" $d; echo x > $d/s/$DIR/k; umount $d; rmdir $d'",
        "a",
        "bash",
    ),
    // Tools.
    way("printf x | BATON_WRITER_ID=a dd of=k status=none", "a", "dd"),
    way("BATON_WRITER_ID=a cp /proc/self/comm k", "a", "cp"),
    way("BATON_WRITER_ID=other /bin/echo x > before; BATON_WRITER_ID=a mv before k", "a", "mv"),
    way("BATON_WRITER_ID=other /bin/echo x > k; BATON_WRITER_ID=a sed -i s/x/y/ k", "a", "sed"),
    way("BATON_WRITER_ID=other /bin/echo x > k; BATON_WRITER_ID=a truncate -s 3 k", "a", "truncate"),
    way("BATON_WRITER_ID=other /bin/echo x > k; BATON_WRITER_ID=a bash -c '/bin/echo y >> k'", "a", "echo"),
    told("echo k | BATON_WRITER_ID=a xargs -P2 -I{} sh -c 'echo $$ > {}'", "a"),
    told("find . -maxdepth 0 -exec env BATON_WRITER_ID=a sh -c 'echo $$ > k' ';'", "a"),
    told("printf 'all:\\n\\t@BATON_WRITER_ID=a sh -c '\"'\"'echo $$$$ > k'\"'\"'\\n' | BATON_WRITER_ID=other make -s -f -", "a"),
    told("BATON_WRITER_ID=a awk 'BEGIN { \"echo $PPID\" | getline p; print p > \"k\" }'", "a"),
    // Languages.
    told("BATON_WRITER_ID=a perl -e 'open(F, \">\", \"k\"); print F $$; close(F)'", "a"),
    // A title that it gives itself lies over its environment.
    told("BATON_WRITER_ID=hidden perl -e '$0 = \"renamed\"; open(F, \">\", \"k\"); print F $$; close(F)'", "")
        .of_nobody()
        .and(|line| line["process"]["comm"] == "renamed"),
    told("BATON_WRITER_ID=a $PYTHON -c 'import os; open(\"k\", \"w\").write(str(os.getpid()))'", "a"),
    told(
        "BATON_WRITER_ID=a $PYTHON -c 'import os, threading\ndef put(): open(\"k\", \"w\").write(str(os.getpid()))\nt = threading.Thread(target=put); t.start(); t.join()'",
        "a",
    ),
    // A thread that is left when the first one has ended.
    told(
        "BATON_WRITER_ID=a $PYTHON -c 'import ctypes, os, platform, threading\ndef put():\n while open(\"/proc/self/stat\").read().rpartition(\")\")[2].split()[0] != \"Z\": pass\n with open(\"k\", \"w\") as f: f.write(str(os.getpid()))\n os._exit(0)\nthreading.Thread(target=put).start()\nctypes.CDLL(None).syscall(60 if platform.machine() == \"x86_64\" else 93, 0)'",
        "a",
    ),
    told("$PYTHON -c 'import os; os.environ[\"BATON_WRITER_ID\"] = \"hidden\"; open(\"k\", \"w\").write(str(os.getpid()))'", "")
        .of_nobody(),
    told(
        "$PYTHON -c 'import os, subprocess\nos.environ[\"BATON_WRITER_ID\"] = \"a\"\nsubprocess.run([\"sh\", \"-c\", \"echo $$ > k\"], check=True)'",
        "a",
    ),
    told(
        "BATON_WRITER_ID=other $PYTHON -c 'import os, subprocess\nf = open(\"k\", \"w\")\nsubprocess.run([\"sh\", \"-c\", \"echo $$\"], stdout=f, env={**os.environ, \"BATON_WRITER_ID\": \"a\"}, check=True)'",
        "a",
    )
    .and(|line| names(line).iter().any(|name| name.starts_with("python"))),
    told(
        "BATON_WRITER_ID=a $PYTHON -c 'import os\nif os.fork() == 0:\n open(\"k\", \"w\").write(str(os.getpid()))\n os._exit(0)\nos.wait()'",
        "a",
    ),
    told(
        "BATON_WRITER_ID=a $PYTHON -c 'import multiprocessing, os\ndef put(): open(\"k\", \"w\").write(str(os.getpid()))\np = multiprocessing.get_context(\"fork\").Process(target=put); p.start(); p.join()'",
        "a",
    ),
    told("BATON_WRITER_ID=a node -e 'require(\"fs\").writeFileSync(\"k\", String(process.pid))'", "a"),
    told(
        "BATON_WRITER_ID=a node -e 'const w = require(\"worker_threads\"); new w.Worker(`require(\"fs\").writeFileSync(\"k\", String(process.pid))`, {eval: true})'",
        "a",
    ),
    told(
        "BATON_WRITER_ID=other node -e 'require(\"child_process\").execFileSync(\"sh\", [\"-c\", \"echo $$ > k\"], {env: {...process.env, BATON_WRITER_ID: \"a\"}})'",
        "a",
    ),
];

/// The names of those that took part beside who wrote last.
fn names(line: &Value) -> Vec<&str> {
    line["others"].as_array().into_iter().flatten().filter_map(|process| process["comm"].as_str()).collect()
}
