#!/usr/bin/env bash
# Kills the daemon again and again while eight processes write, and looks at everything after each kill: nothing that was
# acknowledged is lost, nothing is torn, nothing is left over. Says how many kills the store outlived; stops at the first
# that it did not. Works from any directory.
#
# usage: scripts/crash_loop.sh [KILLS]     1000 when none are given: some 20 minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-1000}" in
  '' | *[!0-9]*) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
kills=${1:-1000}
[ -e /dev/fuse ] || { echo 'there is no /dev/fuse here, so nothing can be mounted' >&2; exit 1; }

say() { printf '\n== %s\n' "$*"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
all=0 changes=0
# In rounds, each on a fresh store and with chances of its own.
while [ "$all" -lt "$kills" ]; do
  round=$((kills - all < 200 ? kills - all : 200))
  say "$round kills more, $all so far"
  BATONFS_LONG=1 BATONFS_KILLS=$round cargo test --quiet --test mount -- kill_loop:: --nocapture 2>&1 | tee "$log"
  survived=$(awk '/ kills survived: / { kills += $1; changes += $4 } END { print kills + 0, changes + 0 }' "$log")
  [ "${survived%% *}" -gt 0 ] || { echo 'nothing was killed' >&2; exit 1; }
  all=$((all + ${survived%% *})) changes=$((changes + ${survived##* }))
done
say "$all kills survived; each of $changes acknowledged changes was there"
