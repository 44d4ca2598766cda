#!/usr/bin/env bash
# Runs every fuzz target for a while, from the seeds in fuzz/seeds.
#
#   scripts/fuzz.sh [--seconds N] [--sanitizer address|none] [--planted] [TARGET ...]
#   scripts/fuzz.sh --seeds      makes the seeds again from real encodings, after a format has changed
#
# --planted puts a panic behind each target's parser first (the cfg `planted`) and demands that the target finds it
# within its time: a fuzzer that cannot find that finds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

seconds=60 sanitizer=none planted=0 targets=()
while (($#)); do
    case $1 in
        --seconds) seconds=$2; shift 2 ;;
        --sanitizer) sanitizer=$2; shift 2 ;;
        --planted) planted=1; shift ;;
        --seeds) cd fuzz && exec cargo run --quiet --bin seeds -- seeds ;;
        -*) echo "fuzz.sh: unknown option $1" >&2; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done
((${#targets[@]})) || targets=(wal_read page_decode store_vs_model command_decode grpc_request)

if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --version 0.13.2 --locked
fi
# Sanitizers are behind an unstable flag of rustc; this makes the stable compiler take it.
if [[ $sanitizer != none ]]; then export RUSTC_BOOTSTRAP=1; fi
# Overflow checks and debug assertions stay on; the cfg below is what the planted panics hang on.
if ((planted)); then export RUSTFLAGS="${RUSTFLAGS:-} --cfg planted"; fi
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-${CARGO_TARGET_DIR:-$root/target}/fuzz}
((planted)) && export CARGO_TARGET_DIR=$CARGO_TARGET_DIR-planted

work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-fuzz.XXXXXX")
trap 'rm -rf "$work"' EXIT

failed=0
for target in "${targets[@]}"; do
    mkdir -p "$work/corpus/$target" "$work/artifacts/$target"
    log=$work/$target.log
    status=0
    cargo fuzz run --fuzz-dir fuzz --sanitizer="$sanitizer" "$target" \
        "$work/corpus/$target" "fuzz/seeds/$target" -- \
        -dict="fuzz/dictionaries/$target.dict" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
        -artifact_prefix="$work/artifacts/$target/" -print_final_stats=1 >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    if ((planted)); then
        if ((status != 0)) && grep -q 'planted panic' "$log"; then
            echo "fuzz $target: planted panic found"
        else
            tail -30 "$log"
            echo "fuzz $target: planted panic NOT found in $seconds s"
            failed=1
        fi
    elif ((status != 0)); then
        tail -60 "$log"
        for input in "$work/artifacts/$target"/*; do
            [[ -f $input ]] || continue
            echo "input $(basename "$input"), base64:"
            base64 "$input"
        done
        echo "fuzz $target: FAILED"
        failed=1
    else
        echo "fuzz $target: ${runs:-?} runs in $seconds s, no crash"
    fi
done
exit $failed
