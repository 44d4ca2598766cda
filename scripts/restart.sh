#!/usr/bin/env bash
# How soon a large store is ready again after kill -9 with dropped caches: killed under open-loop 5,000 puts a second, then
# killed at full load. Prints the time until a linearizable read answers, what was replayed and read for it, the memory ten
# seconds later, and the largest log met.
#
#   scripts/restart.sh [--gb 8] [--value-bytes 1024] [--seconds 30] [--data DIR]
#
# --data names a member's directory that this script filled before (with the same sizes), or is to fill and leave there; else
# all is done in a new directory under ${TMPDIR:-/var/tmp}, which goes again (three times the size asked for must be free).
# COFFER_BIN and COFFER_BENCH name the binaries; where they do not, both are built.
set -euo pipefail
cd "$(dirname "$0")/.."

gb=8 value_bytes=1024 seconds=30 data=
while (($#)); do
    case $1 in
        --gb) gb=$2 ;;
        --value-bytes) value_bytes=$2 ;;
        --seconds) seconds=$2 ;;
        --data) data=$2 ;;
        *) echo "restart: unknown option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
key_bytes=24
keys=$((gb * 1000000000 / (key_bytes + value_bytes)))
target=${CARGO_TARGET_DIR:-$PWD/target}
if [[ -z ${COFFER_BIN:-} || -z ${COFFER_BENCH:-} ]]; then
    cargo build --release -p coffer-server -p coffer-bench
fi
bin=${COFFER_BIN:-$target/release/coffer} bench=${COFFER_BENCH:-$target/release/coffer-bench}

work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-restart.XXXXXX")
data=${data:-$work/data}
server=
finish() {
    [[ -z $server ]] || { kill -9 "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    rm -rf "$work"
}
trap finish EXIT
die() {
    tail -5 "$work/log"
    echo "restart: FAILED: $1"
    exit 1
}

# Starts the member, on any free port, and waits until a linearizable read answers (/health does one).
start() {
    : >"$work/log"
    "$bin" --data-dir "$data" --quota-backend-bytes $((gb * 8000000000)) \
        --listen-client-urls http://127.0.0.1:0 --advertise-client-urls http://127.0.0.1:0 >>"$work/log" 2>&1 &
    server=$!
    url=
    until [[ -n $url && $(curl -s "$url/health" || true) == *'"true"'* ]]; do
        url=$(sed -n 's/.*serving client traffic insecurely.*"address":"\([^"]*\)".*/\1/p' "$work/log" | head -1)
        kill -0 "$server" 2>/dev/null || die "the member does not start"
        sleep 0.01
    done
}
load() { "$bench" load --endpoints "$url" --keys "$keys" --key-bytes $key_bytes --value-bytes "$value_bytes" "$@"; }
wal_mib() { du -sm "$data/wal" | cut -f1; }
# A number from the line that tells how page file and log were opened.
opened() { grep -m1 '"opened page file and log"\|opened page file and log' "$work/log" | sed -n "s/.*\"$1\":\"\{0,1\}\([0-9]*\).*/\1/p"; }

# Nothing of the data stays in memory: what a killed process left in the page cache is written, then all of it is dropped.
drop_caches() {
    sync
    if ! echo 3 2>/dev/null >/proc/sys/vm/drop_caches; then
        find "$data" -type f -exec dd if={} iflag=nocache count=0 status=none \;
    fi
}

rows=()
# What a kill under some load costs: a name, then how the load is driven.
round() {
    local name=$1 wal=0 now largest=0
    shift
    start
    load --work put --seconds $((seconds * 2 + 80)) "$@" >"$work/load" 2>&1 &
    local loader=$!
    # under a steady load the log is measured when segments kept from a faster time are gone; at full speed a minute more would
    # only fill the disk
    [[ "$*" != *--rate* ]] || sleep 60
    for _ in $(seq "$seconds"); do
        sleep 1
        now=$(wal_mib)
        ((now <= wal)) || wal=$now
    done
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    kill "$loader" 2>/dev/null || true
    wait "$loader" 2>/dev/null || true
    drop_caches
    local began ready
    began=$(date +%s%N)
    start
    ready=$((($(date +%s%N) - began) / 1000000))
    sleep 10
    local anonymous
    anonymous=$(awk '/^RssAnon/ { print int($2 / 1024) }' "/proc/$server/status")
    largest=$(du -sm "$data/pages" | cut -f1)
    rows+=("$(printf '%-28s %9d %9d %8d %8d %12d %8d %9d' "$name" "$ready" "$(opened entries-replayed)" \
        $(($(opened bytes-replayed) >> 20)) "$(opened pages-read)" "$anonymous" "$wal" "$largest")")
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    server=
}

if [[ ! -d $data ]]; then
    echo "filling $keys keys of $value_bytes bytes"
    start
    load --work fill --clients 512
    kill "$server"
    wait "$server" || true
    server=
fi
round "open loop, 5,000 puts/s" --rate 5000
round "full load, 256 clients" --clients 256
echo
printf '%-28s %9s %9s %8s %8s %12s %8s %9s\n' "killed under" "ready ms" "entries" "log MiB" "pages" \
    "anon MiB 10s" "wal MiB" "file MiB"
printf '%s\n' "${rows[@]}"
