#!/usr/bin/env bash
# Measures the mount, in one run on one file system. Durable commits: 1, 4, 16 and 64 writers, each on its own key, values
# of 1 KiB and 64 KiB, also through the library, against a directory written with the neighbour's four fsyncs. Other work,
# against plain files and a FUSE filesystem that does nothing: opening and reading, large values, appends, listings, and
# stores of many keys. Prints tables, tells which aims are reached, and says where the picture is. Takes about ten minutes
# and 5 GB, and means something on a quiet machine only.
#
# usage: scripts/bench.sh [--debug] [--parts PART,..] [--rounds N] [--seconds S] [--quick] [--writers N,..]
#                         [--sizes BYTES,..] [--json] [--dir DIR] [--sync-ms MS] [--picture FILE]
#   --sync-ms MS  commits alone, on a disk in memory whose flushes take so many milliseconds longer (as root)
#   --debug       with a debug build: shows that it works, measures nothing worth reading
#   --help        says what the others do
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=bench
if [ "${1:-}" = --debug ]; then
  profile=dev
  shift
fi
exec cargo bench --quiet --profile "$profile" --bench speed -- "$@"
