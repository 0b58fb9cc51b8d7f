#!/usr/bin/env bash
# The house rules that no compiler checks, by grep; each says why it is there when it is broken. Changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The last part of a pipe runs in this shell, so that `rule` can note what it found.
shopt -s lastpipe
broken=0

# Prints "file:line: code" of Rust files without their comments, so that prose may name what code may not.
code() {
  local file
  for file in "$@"; do
    sed -E 's#(^|[^:"])//.*#\1#' "$file" | grep -n '[^[:space:]]' | sed "s#^\([0-9]*\):#$file:\1: #" || true
  done
}

# rule WHY < findings: fails with the reason when there are findings.
rule() {
  local found
  found=$(cat)
  [ -n "$found" ] || return 0
  broken=1
  printf '\nhouse rule broken: %s\n%s\n' "$1" "$found" >&2
}

mapfile -t sources < <(git ls-files --cached --others --exclude-standard 'src/*.rs' | sort -u)
mapfile -t rooms_sources < <(printf '%s\n' "${sources[@]}" | grep -vE '(^|/)(tests|testing)(/|\.rs$)|_tests\.rs$')
without() { printf '%s\n' "${rooms_sources[@]}" | grep -vE "$1"; }

# --- doors ---
code $(without '^src/fuse/adapter\.rs$') | { grep -E '\bfuser::|\buse fuser\b|extern crate fuser' || true; } |
  rule 'only src/fuse/adapter.rs names fuser: the kernel protocol can then change in one file, and all else is tested without a mount'

# Inside the local engine `.sync_data()` is the seam's own method.
code $(without '^src/engine/local/disk\.rs$') |
  { grep -E '\.sync_(all|data)\(|\b(fdatasync|syncfs|sync_file_range|renameat|renameat2|renameat_with)\b|\b(fs|libc|rustix)::(fsync|rename)\b|(^|[^._[:alnum:]:])fsync\(' || true; } |
  { grep -vE '\bfn (fsync|fdatasync)\b|^src/engine/local/.*\.sync_data\(\)' || true; } |
  rule 'only src/engine/local/disk.rs syncs or renames: the crash tests break the disk there, and see all of it only if nobody goes around it'

# --- imports go one way ---
# room: the rooms it may use
imports='
words:
engine: words
store: engine words
handoff: store engine words
control: handoff store engine words
identity: words
committer: handoff identity store engine words
fuse: control handoff identity store engine words
cli: committer fuse control handoff identity store engine words
'
while IFS=: read -r room allowed; do
  [ -n "$room" ] || continue
  files=$(without '^$' | grep -E "^src/$room(/|\.rs$)" || true)
  [ -n "$files" ] || continue
  # shellcheck disable=SC2086 # one word per file and room
  code $files | { grep -E '\bcrate::' || true; } |
    { grep -vE "crate::($(echo "$room" $allowed | tr ' ' '|'))\b|pub(\(in crate::|\(crate\))[^;]*$" || true; } |
    rule "imports go one way (main -> cli, fuse -> control, handoff -> store -> engine; words is a leaf): $room may use only:${allowed:- nothing}"
done <<< "$imports"

# --- identity ---
if [ -f src/identity/holders.rs ]; then
  code src/identity/holders.rs | { grep -E '"[^"]*(environ|/exe|/cwd|/root|/maps|/auxv|/io|/wchan|/stack|/ns/)[^"]*"|read_link|readlink|kcmp|pidfd_getfd|/fd/' || true; } |
    rule 'src/identity/holders.rs is called at FLUSH and RELEASE, where reading these files of /proc deadlocks with a process in exec'
fi

# --- the repository speaks of the project alone ---
# Brackets keep the patterns from finding themselves.
git ls-files --cached --others --exclude-standard | sort -u | while read -r file; do
  [ -f "$file" ] && grep -nIHiE '/[w]ork/|\b(sub|helper)[ -]?[a]gent|[w]orktree|[a]rtifactory|https?://[^ /]*(mirror|proxy|[r]egistry)' "$file" || true
done | { grep -v '^Cargo.lock:' || true; } |
  rule 'nothing of the place where it was written belongs in the repository'

# --- tests ---
for main in tests/*/main.rs; do
  dir=$(dirname "$main")
  for entry in "$dir"/*; do
    name=$(basename "$entry" .rs)
    if [ "$name" = main ] || { [ ! -d "$entry" ] && [ "$entry" = "${entry%.rs}" ]; }; then continue; fi
    if [ -d "$entry" ] && ! compgen -G "$entry/*.rs" > /dev/null; then continue; fi
    grep -qE "^\s*(pub(\(crate\))? )?mod $name;" "$main" || echo "$entry"
  done
done | rule 'a test file its runner does not name never runs'

for file in tests/common/*; do
  name=$(basename "$file")
  grep -rqE "common/$name|mod ${name%.rs};|mod common;" tests --include=*.rs || echo "$file"
done | rule 'a shared builder nobody uses is no builder'

# A promise is a line that begins with its number in bold, such as "**S12**"; a test names it by that number.
for page in src/engine/FORMAT.md src/fuse/SEMANTICS.md src/cli/CONTRACT.md; do
  [ -f "$page" ] || continue
  promises=$(grep -oE '^[[:space:]]*([-*] |[0-9]+\. )?\*\*[A-Z]+[0-9]+[.:]?\*\*' "$page" | grep -oE '[A-Z]+[0-9]+' || true)
  [ -n "$promises" ] || echo "$page: no numbered promise at all"
  for promise in $promises; do
    # By its number, or as the beginning of the test's name.
    named="(^|[^A-Za-z0-9])$promise([^0-9]|\$)|fn ${promise,,}_"
    grep -rqE "$named" tests --include=*.rs ||
      grep -qE "$named" $(printf '%s\n' "${sources[@]}" | grep -E '(^|/)(tests|testing)(/|\.rs$)|_tests\.rs$' || echo /dev/null) ||
      echo "$page: $promise"
  done
done | rule 'every numbered promise has a test that names it: a promise without one is a hope'

# The road of a write names, in its last column, the test that shows each step.
sed -nE 's/^\/\/! \|.*\| `([a-z0-9_]+)` \|$/\1/p' src/lib.rs | while read -r shown; do
  grep -rqE "fn $shown\(" tests src --include=*.rs || echo "src/lib.rs: $shown"
done | rule 'the road of a write names tests that are there'

[ "$broken" = 0 ] || exit 1
echo "house rules: kept"
