#!/usr/bin/env bash
# Three agents pass a piece of work on, each in its own process and language. See README.md beside this file.
# usage: run.sh     BATONFS names the command where it is not on the PATH
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BATONFS=$(realpath "$(command -v "${BATONFS:-batonfs}")")
export BATONFS

place=$(mktemp -d "${TMPDIR:-/tmp}/batonfs-pipeline.XXXXXX")
follower=
agents=()
cleanup() {
  for process in $follower "${agents[@]}"; do kill "$process" 2> /dev/null || true; done
  mountpoint -q "$place/state" && "$BATONFS" umount "$place/state"
  rm -rf --one-file-system "$place"
}
trap cleanup EXIT

mkdir "$place/store" "$place/state"
"$BATONFS" mount "$place/store" "$place/state"
session=$(cat "$place/state/.baton/new")
directory=$place/state/$session

# Who follows the log sees every line once, whenever it is written.
tail -n +1 -f "$directory/.baton/log" > "$place/followed" &
follower=$!

# The last of them is started first: the order is in the handoffs, not in when anybody starts.
for agent in reviewer.sh coder.py planner.sh; do
  "$BATONFS" run --writer-id "${agent%.*}" -- "$here/$agent" "$directory" &
  agents+=("$!")
done
for process in "${agents[@]}"; do wait "$process"; done
agents=()

# `tail -f` looks about once a second.
for _ in $(seq 100); do
  grep -q '"version":3' "$place/followed" && break
  sleep 0.1
done
echo 'who wrote what:'
jq -r 'select(.version) | "  \(.writer.writer_id) \(.key) \(.version)"' "$place/followed"
echo 'the handoff of every session:'
jq -r '"  \(.writer.writer_id): \(.summary)"' "$place/state/.baton/handoffs"
