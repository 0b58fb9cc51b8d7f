#!/usr/bin/env bash
# The gate: formats, lints, house rules, all tests, and nothing left behind. Works from any directory, also as root on
# a fresh Debian-like machine that has only Rust.
#
# usage: scripts/check.sh [--long]     --long runs the long rounds and the ignored tests too: about an hour and a half
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

long=0
case "${1:-}" in
  '') ;;
  --long) long=1 ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

say() { printf '\n== %s\n' "$*"; }
fail() { printf '\ncheck.sh: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# --- what the tests need: command and the package that has it ---
PATH="$PATH:/usr/sbin:/sbin"
tools='cc:gcc git:git python3:python3 node:nodejs dash:dash setpriv:util-linux diff:diffutils find:findutils tar:tar jq:jq make:make gzip:gzip sudo:sudo perl:perl-base su:util-linux awk:mawk fusermount3:fuse3 mkfs.ext4:e2fsprogs mount:mount'
missing=()
for tool in $tools; do
  command -v "${tool%%:*}" > /dev/null || missing+=("${tool##*:}")
done
if [ "${#missing[@]}" -gt 0 ]; then
  say "installing what the tests need and is not here: ${missing[*]}"
  command -v apt-get > /dev/null || fail "no apt-get here; please install: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi
command -v cargo > /dev/null || PATH="$PATH:$HOME/.cargo/bin"
command -v cargo > /dev/null || fail 'Rust is needed: https://rustup.rs'
for component in fmt clippy; do
  cargo "$component" --version > /dev/null 2>&1 || rustup component add "$(echo $component | sed 's/^fmt$/rustfmt/')"
done

[ -e /dev/fuse ] || as_root modprobe fuse 2> /dev/null || true
if [ -d /sys/fs/fuse/connections ] && ! mountpoint -q /sys/fs/fuse/connections; then
  # A test that hangs is ended through these files; without them it is unmounted by force.
  as_root mount -t fusectl none /sys/fs/fuse/connections 2> /dev/null || true
fi

# --- a place of our own, so that what a test leaves is seen and goes away ---
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
[ -n "$target" ] || fail 'cargo metadata names no target directory'
outer_tmp=${TMPDIR:-/tmp}
private=$(mktemp -d "$outer_tmp/batonfs-check.XXXXXX")
chmod 755 "$private"
mkdir "$private/tmp"
# Other users get through, not in: a test runs the command as another user.
chmod 711 "$private" "$private/tmp"
report="$private/report"
unset BATON_WRITER_ID BATON_STAGE_ID BATON_WORKER_ID BATON_SESSION_ID BATON_CONFLICT_POLICY

our_mounts() { awk -v under="$private/" 'index($5, under) == 1 { print $3, $5 }' /proc/self/mountinfo; }
# The command by its path, what else a test starts by the place it was given. That is read within a limit: a process
# that hangs in exec would keep who reads it.
our_processes() {
  local at
  for at in /proc/[0-9]*; do
    case "$(readlink "$at/exe" 2> /dev/null)" in
      "$target"/*/batonfs | "$target"/*/batonfs' (deleted)') echo "${at#/proc/}" ;;
      '') ;;
      *) if timeout -s KILL 5 grep -qzxF "TMPDIR=$private/tmp" "$at/environ" 2> /dev/null; then echo "${at#/proc/}"; fi ;;
    esac
  done | sort
}

# Takes away what is mounted under our own directory: gently, then without asking the daemon.
cleanup() {
  local device point
  our_mounts | while read -r device point; do
    # Only what is no disk has the number of a connection.
    as_root timeout 10 umount -l "$point" 2> /dev/null || [ "${device%:*}" != 0 ] ||
      echo 1 2> /dev/null > "/sys/fs/fuse/connections/${device#*:}/abort" || true
    as_root timeout 10 umount -l "$point" 2> /dev/null || true
  done
  if [ -z "$(our_mounts)" ]; then rm -rf --one-file-system "$private"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
processes_before=$(our_processes)

say 'format'
cargo fmt --check || fail 'run cargo fmt'

say 'lint'
cargo clippy --all-targets --quiet -- -D warnings

say 'house rules'
scripts/house.sh

say 'tests'
arguments=()
if [ "$long" = 1 ]; then
  export BATONFS_LONG=1
  arguments=(--include-ignored)
fi
# Also where who started this ignores them: a test ends writers by these.
cargo_test() { env --default-signal=HUP,INT,QUIT cargo test --no-fail-fast "$@"; }
# The test runners but one, as arguments.
runners_but() { ls tests/*/main.rs | sed -nE 's#tests/(.*)/main.rs#--test \1#p' | grep -vx -- "--test $1"; }
skipped_here=0
failed=0
# Into a file that is shown meanwhile, not through a pipe: that would stay open for as long as a process that a test left.
: > "$report"
tail -n +1 -f --pid=$$ "$report" &
shown=$!
export TMPDIR="$private/tmp"
if [ -e /dev/fuse ] && [ "$long" = 1 ]; then
  # The two that last longest beside the others: each runner mounts once at a time.
  beside=()
  runners=$(runners_but store)
  # shellcheck disable=SC2086 # two words a runner
  cargo_test --no-run --lib --bins --examples $runners >> "$report" 2>&1 || failed=1
  cargo_test --no-run --profile long --test store >> "$report" 2>&1 || failed=1
  for topic in soak:: model::; do
    cargo_test --test mount -- "${arguments[@]}" "$topic" > "$report.$topic" 2>&1 &
    beside+=("$!")
  done
  # shellcheck disable=SC2086 # two words a runner
  cargo_test --lib --bins --examples $runners -- "${arguments[@]}" --skip soak:: --skip model:: >> "$report" 2>&1 || failed=1
  cargo_test --profile long --test store -- "${arguments[@]}" >> "$report" 2>&1 || failed=1
  cargo_test --doc >> "$report" 2>&1 || failed=1
  for process in "${beside[@]}"; do wait "$process" || failed=1; done
  cat "$report".*:: >> "$report"
elif [ -e /dev/fuse ]; then
  cargo_test -- "${arguments[@]}" >> "$report" 2>&1 || failed=1
else
  echo 'THERE IS NO /dev/fuse HERE: the tests that mount are skipped, and most of what this project promises is not checked'
  skipped_here=$(cargo test --quiet --test mount -- --list | grep -c ': test$' || true)
  runners=$(runners_but mount)
  # shellcheck disable=SC2086 # two words a runner
  cargo_test --lib --bins $runners -- "${arguments[@]}" >> "$report" 2>&1 || failed=1
  cargo_test --doc >> "$report" 2>&1 || failed=1
fi
export TMPDIR="$outer_tmp"
sleep 1
{ kill "$shown" && wait "$shown"; } 2> /dev/null || true

if [ -e /dev/fuse ] && [ "$failed" = 0 ]; then
  say "the README's session is what the demo does"
  BATONFS="$target/debug/batonfs" scripts/demo.sh --readme > "$private/session" || fail "scripts/demo.sh --readme failed"
  awk '/^```console$/ { shown = 1; next } /^```$/ { if (shown) exit } shown' README.md > "$private/shown"
  diff -u "$private/shown" "$private/session" || fail "README.md shows another session than scripts/demo.sh --readme prints"
fi

if [ -e /dev/fuse ]; then
  say 'the bench runs'
  parts=commits,read,large,append,list,sessions,million
  TMPDIR="$private/tmp" scripts/bench.sh --debug --quick --parts "$parts" --writers 1,16 --sizes 1024 --json \
    --picture "$private/picture.svg" > "$private/bench" 2> "$private/bench.talk" ||
    { cat "$private/bench.talk" >&2; fail 'scripts/bench.sh failed'; }
  jq -e '(.points | length) == 10 and (.aims | length) == 14 and all(.points[].commits_per_s, .aims[].mount; . > 0)' \
    "$private/bench" > "$private/bench.told" || { cat "$private/bench" >&2; fail 'scripts/bench.sh did not measure everything'; }
  if [ "$(id -u)" = 0 ] && [ -e /dev/loop-control ]; then
    TMPDIR="$private/tmp" scripts/bench.sh --debug --quick --sync-ms 2 --writers 1 --sizes 1024 --json \
      --picture "$private/picture.svg" > "$private/bench" 2> "$private/bench.talk" ||
      { cat "$private/bench.talk" >&2; fail 'scripts/bench.sh --sync-ms failed'; }
    # Who is durable waits for it, four times with four syncs.
    jq -e '[.points[] | {(.way): .durable_step_p50_us}] | add | .directory > 8000 and .mount > 2000' \
      "$private/bench" > "$private/bench.told" || { cat "$private/bench" >&2; fail 'the disk of scripts/bench.sh --sync-ms is not slow'; }
  fi
fi

say 'nothing left behind'
left=0
# Root's mounts have the bare type "fuse", so place tells whose they are; one elsewhere still shows by its process.
our_mounts | sed 's/^/a test left a mount: /' > "$private/left"
# A daemon ends a moment after its mount.
for _ in $(seq 50); do
  processes=$(comm -13 <(echo "$processes_before") <(our_processes) | sed '/^$/d')
  [ -n "$processes" ] || break
  sleep 0.1
done
for process in $processes; do
  echo "a test left a process: $process $(tr '\0' ' ' < "/proc/$process/cmdline" 2> /dev/null || true)" >> "$private/left"
done
{ find "$private/tmp" -mindepth 1 -maxdepth 1 -xdev 2> /dev/null || true; } | sed 's/^/a test left a temporary file: /' >> "$private/left"
if [ -s "$private/left" ]; then
  cat "$private/left" >&2
  left=1
else
  echo 'no mount, no process, no temporary file'
fi

# Also where a runner never got to its result, the failure counts.
summary=$(awk -v more="$skipped_here" '/^test result:/ { for (i = 2; i <= NF; i++) {
  if ($i ~ /^passed/) passed += $(i-1); if ($i ~ /^failed/) failed += $(i-1); if ($i ~ /^ignored/) ignored += $(i-1) } }
  END { printf "%d passed, %d failed, %d skipped", passed, failed, ignored + more }' "$report")
printf '\n%s\n' "$summary"
[ "$failed" = 0 ] && [ "$left" = 0 ]
