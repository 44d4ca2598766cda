#!/usr/bin/env bash
# The long runs: what is too slow for every change, run before a release and by hand; prints the counts to quote.
#
#   scripts/long.sh            all, about two hours on two cores
#   scripts/long.sh kill fuzz  these alone
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} CARGO_INCREMENTAL=0
export COFFER_BIN=$CARGO_TARGET_DIR/ci/coffer

# Every long variant of the tests: more crash points, random flips on 1 MiB segments, all seeds of the simulator.
run_tests() { COFFER_LONG=1 cargo test --profile ci --workspace -- --nocapture; }

# kill -9 of the real binary under load: at least 100 cycles over at least a million acknowledged puts.
run_kill() {
    COFFER_KILL_CYCLES=100 COFFER_KILL_PUTS=10000 \
        cargo test --profile ci -p coffer-server --test it kill -- --nocapture
}

# An hour of fuzzing under AddressSanitizer, and proof that each target finds a planted panic.
run_fuzz() {
    scripts/fuzz.sh --seconds 60 --planted
    scripts/fuzz.sh --seconds 1200 --sanitizer address
}

# The unsafe modules (the pager's table and readers, maps and buffers of the disk) under AddressSanitizer. In a target directory
# of its own: everything is built anew with other flags. RUSTC_BOOTSTRAP: the flag is not stable.
run_address() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$CARGO_TARGET_DIR/address \
        cargo test --target x86_64-unknown-linux-gnu -p coffer-engine --lib -- pager::tests disk::
}

run_planted() { scripts/planted.sh; }

run_peers() {
    cargo build --profile ci -p coffer-server
    scripts/etcdctl_session.sh
    for _ in 1 2 3; do scripts/kubernetes.sh coffer; done
}

# etcd's own tests, as far as one member goes; they take fixed ports, 2379 and 20000 to 20014 among them.
run_suite() {
    cargo build --profile ci -p coffer-server
    cargo build --profile ci -p coffer-engine --example log_entries
    scripts/etcd_suite.sh --rounds 20
}

# 8 GB of live data, killed and started with cold caches.
run_restart() { COFFER_BIN='' scripts/restart.sh --gb 8; }

runs=(tests kill fuzz address planted peers suite restart)
if (($#)); then runs=("$@"); fi
for run in "${runs[@]}"; do
    echo "=== $run"
    begun=$SECONDS
    "run_$run"
    echo "=== $run took $((SECONDS - begun)) s"
done
