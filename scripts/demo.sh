#!/usr/bin/env bash
# The main job, played end to end on a temporary store: a planner in bash, a handoff, an implementer in Python, and
# what the store holds afterwards. Works from any directory, also as root on a fresh Debian-like machine that has only Rust.
#
# usage: scripts/demo.sh [--readme]     --readme prints only the session that README.md shows
#        BATONFS=path scripts/demo.sh   uses that binary instead of building one
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

mode=story
case "${1:-}" in
  '') ;;
  --readme) mode=readme ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# --- what it needs ---
needed=()
command -v python3 > /dev/null || needed+=(python3)
command -v jq > /dev/null || needed+=(jq)
[ -n "${BATONFS:-}" ] || command -v cc > /dev/null || needed+=(gcc libc6-dev)
[ "$(id -u)" = 0 ] || command -v fusermount3 > /dev/null || needed+=(fuse3)
if [ "${#needed[@]}" -gt 0 ]; then
  echo "installing what is missing: ${needed[*]}" >&2
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${needed[@]}" > /dev/null
fi
[ -e /dev/fuse ] || as_root modprobe fuse 2> /dev/null || true
[ -e /dev/fuse ] || { echo 'demo.sh: there is no /dev/fuse here, so nothing can be mounted' >&2; exit 1; }
if [ -z "${BATONFS:-}" ]; then
  command -v cargo > /dev/null || PATH="$PATH:$HOME/.cargo/bin"
  echo 'building batonfs ...' >&2
  (cd "$here" && cargo build --release --quiet)
  BATONFS=$(cd "$here" && cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/batonfs
fi
BATONFS=$(readlink -f "$BATONFS")

# --- a place that goes away whatever happens ---
place=$(mktemp -d "${TMPDIR:-/tmp}/batonfs-demo.XXXXXX")
cleanup() {
  cd /
  if mountpoint -q "$place/state"; then
    "$BATONFS" umount "$place/state" > /dev/null 2>&1 || as_root umount -l "$place/state" || true
  fi
  mountpoint -q "$place/state" || rm -rf --one-file-system "$place"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
PATH="$(dirname "$BATONFS"):$PATH"
unset BATON_WRITER_ID BATON_STAGE_ID BATON_WORKER_ID BATON_SESSION_ID BATON_CONFLICT_POLICY
export LC_ALL=C.UTF-8
cd "$place"
mkdir store state

# Prints a command as if it were typed, then runs it in this shell; output and errors as a terminal shows them.
type_in() {
  printf '$ %s\n' "$1"
  eval "$1" 2>&1
}

# The same for a command that is to be refused: the demo ends if it is not.
refused() {
  printf '$ %s\n' "$1"
  if (eval "$1") 2>&1; then
    echo 'demo.sh: this was to be refused' >&2
    exit 1
  fi
}

# --- what README.md shows ---
readme() {
  type_in "batonfs mount --conflict-policy error store state"
  type_in "mkdir state/parser && cd state/parser"
  type_in "BATON_WRITER_ID=planner /bin/echo 'The lexer first.' > plan.md"
  type_in "BATON_WRITER_ID=planner /bin/echo '{\"task\": \"the lexer\"}' > __handoff.json"
  refused "BATON_WRITER_ID=coder /bin/echo 'The parser first.' > plan.md"
  type_in "jq -r .words .baton/errors"
  type_in "python3 -c 'import json; print(json.load(open(\"__handoff.json\"))[\"summary\"])'"
  type_in "cd ../.. && batonfs umount state && cat store/parser/plan.md"
}

if [ "$mode" = readme ]; then
  readme
  exit 0
fi

# --- the story ---
chapter() { printf '\n# %s\n\n' "$*"; }

cat > planner.sh <<'END'
set -e
mkdir -p state/parser/evidence
cd state/parser
{
  echo '# Plan'
  echo '1. The lexer, by hand: no generator.'
  echo '2. The parser on top of it.'
} > plan.md
echo '{"tokens": 31, "source": "spec, chapter 2"}' > evidence/grammar.json
echo '{"slowest_ms": 840, "file": "big.src"}' > evidence/timing.json
cat > __handoff.json <<JSON
{
  "source_persona": "planner",
  "target_persona_or_human": {"kind": "persona", "label": "implementer"},
  "task": "write the lexer",
  "reason": "the plan is ready",
  "evidence_refs": [{"path": "evidence/grammar.json"}],
  "open_questions": ["are tabs white space?"]
}
JSON
END

cat > implementer.py <<'END'
import json, os

os.chdir("state/parser")

envelope = json.load(open("__handoff.json"))
print("handed over by:", envelope["writer"]["writer_id"])
print("to do:", envelope["handoff"]["task"])
print("open:", *envelope["handoff"]["open_questions"])

try:
    with open("plan.md", "w") as plan:
        plan.write("I know better.\n")
except OSError as error:
    print("plan.md:", error.strerror)

os.remove("__handoff.json")                      # taken

os.makedirs("src", exist_ok=True)
with open("src/lexer.txt", "w") as lexer:
    lexer.write("token = word | number | tab\n")
with open("progress.log", "a") as log:
    print("lexer written", file=log)
    print("lexer tested", file=log)

try:
    with open("__handoff.json", "w") as handoff:
        handoff.write("done, please review")
except OSError as error:
    print("__handoff.json:", error.strerror)

with open("__handoff.json", "w") as handoff:
    json.dump({"task": "review the lexer", "status": "done"}, handoff)
END

chapter 'A store is a directory. Mounted, it takes files.'
type_in "batonfs mount --conflict-policy error store state"

chapter 'A planner, in bash. It makes a session, writes its keys and hands over.'
type_in "cat planner.sh"
type_in "batonfs run --writer-id planner -- bash planner.sh"
type_in "find state -type f | sort"

chapter 'An implementer, in Python, takes over: another process that knows the path and nothing else.'
type_in "cat implementer.py"
type_in "batonfs run --writer-id implementer --stage-id build -- python3 implementer.py"
type_in "cat state/parser/plan.md"
type_in "cat state/parser/progress.log"
type_in "cat state/parser/__handoff.json; echo"

chapter 'Why it was refused, in words.'
type_in "jq -r .words state/parser/.baton/errors"

chapter 'Who wrote what: beside each value, and in the log of the session.'
type_in "grep -r writer_id store/parser/.agent_state_meta | sort"
type_in "jq -r '[.seq, .op, .key, .version, .writer.writer_id, .process.comm] | @tsv' state/parser/.baton/log"

chapter 'Unmounted, the store is plain files.'
type_in "batonfs umount state"
type_in "find store -type f -not -path '*/.*' | sort"
type_in "cat store/parser/plan.md"
