#!/usr/bin/env bash
# Measures durable commits: 1, 4, 16 and 64 writers, each on its own key, values of 1 KiB and 64 KiB, through the mount
# and through the library, against a directory written with the neighbour's four fsyncs, in one run on one file system.
# Prints a table and says where the picture is. Takes about three minutes, and means something on a quiet machine only.
#
# usage: scripts/bench.sh [--debug] [--rounds N] [--seconds S] [--quick] [--writers N,..] [--sizes BYTES,..]
#                         [--json] [--dir DIR] [--picture FILE]
#   --debug   with a debug build: shows that it works, measures nothing worth reading
#   --help    says what the others do
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=bench
if [ "${1:-}" = --debug ]; then
  profile=dev
  shift
fi
exec cargo bench --quiet --profile "$profile" --bench commits -- "$@"
