#!/usr/bin/env bash
# What compaction, checkpoint, snapshot and Defragment do to the longest request: pairs of runs in open loop at 5,000 a second on
# a member with 2 GB, each beside a quiet one; about an hour on an otherwise idle machine.
#
#   scripts/stalls.sh [coffer-bench stalls' options, as --rounds 1 --seconds 20 --keys 200000]
#
# Builds in the release profile, unless COFFER_BIN and COFFER_BENCH name binaries. The data stands below TMPDIR, or /var/tmp.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${COFFER_BIN:-} || -z ${COFFER_BENCH:-} ]]; then
    cargo build --release -p coffer-server -p coffer-bench
    target=${CARGO_TARGET_DIR:-$PWD/target}
    COFFER_BIN=$target/release/coffer COFFER_BENCH=$target/release/coffer-bench
fi
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-stalls.XXXXXX")
pid=
cleanup() {
    if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

"$COFFER_BIN" --data-dir "$work/data" --quota-backend-bytes $((64 << 30)) \
    --listen-client-urls http://127.0.0.1:0 --advertise-client-urls http://127.0.0.1:0 2>"$work/log" &
pid=$!
address=
for _ in $(seq 100); do
    address=$(sed -n 's/.*serving client traffic insecurely.*"address":"\([^"]*\)".*/\1/p' "$work/log" | head -1)
    [[ -n $address ]] && break
    sleep 0.1
done
[[ -n $address ]] || { cat "$work/log"; exit 1; }
"$COFFER_BENCH" stalls --endpoints "$address" --pid "$pid" "$@"
du -sh "$work/data" | sed "s|$work/||"
