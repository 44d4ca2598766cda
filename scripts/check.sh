#!/usr/bin/env bash
# All that a change must pass, in timed steps; what CI runs.
#
#   scripts/check.sh            every step
#   scripts/check.sh fmt test   these steps alone (see the list at the end of this file)
#
# Needs cargo, a C compiler, git, Go (for the peers: etcd, Kubernetes), openssl, curl. Everything else is fetched or built.
# The binary and all tests are built once, in the `ci` profile, and every step shares that target directory.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export COFFER_BIN=$CARGO_TARGET_DIR/ci/coffer
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-check.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The tests, as README gives them, with nothing on the PATH but cargo, rustc, the C compiler and coreutils.
step_test() {
    local bin
    bin=$(scripts/stripped_path.sh "$work/bin")
    PATH=$bin cargo test --profile ci
}

# The form of the source, and that every fault of scripts/planted.txt still fits it.
step_fmt() {
    scripts/planted.sh --match
    cargo fmt --all -- --check
    cargo fmt --manifest-path fuzz/Cargo.toml -- --check
    cargo fmt --manifest-path bench/peers/Cargo.toml -- --check
}

step_clippy() {
    cargo clippy --profile ci --workspace --all-targets -- -D warnings
}

step_doc() {
    RUSTDOCFLAGS="-D warnings" cargo doc --profile ci --workspace --no-deps
}

# The binary that the outer tests run is the one that the tests were built with: the same command finds it built.
step_binary() {
    cargo test --profile ci --no-run
    "$COFFER_BIN" --version
    # README's command for running it, in the profile that is built: it must find the one binary that is meant
    [[ $(cargo run --profile ci -- --version) == *'coffer Version'* ]]
}

# Which system calls a put makes: io_uring_enter and no fdatasync, and the reverse where io_uring is refused.
step_syscalls() {
    scripts/syscalls.sh
}

step_etcdctl() {
    scripts/peers.sh etcd >"$work/peers.log" 2>&1 || { cat "$work/peers.log"; return 1; }
    scripts/etcdctl_session.sh
}

# A backup by etcd's own client while writes go on, restored and compared.
step_backup() {
    scripts/peers.sh etcd >"$work/peers.log" 2>&1 || { cat "$work/peers.log"; return 1; }
    scripts/backup.sh
}

step_kubernetes() {
    scripts/peers.sh kube >"$work/peers.log" 2>&1 || { tail -50 "$work/peers.log"; return 1; }
    scripts/kubernetes.sh coffer
}

step_full_disk() {
    scripts/full_disk.sh
}

step_fuzz() {
    scripts/fuzz.sh --seconds 30
}

step_planted() {
    scripts/planted.sh --sample
}

# The bench programs must build and run, and the report of a comparison must be whole; no figure is judged here.
step_bench() {
    cargo bench --profile ci -p coffer-bench -- --test
    cargo run --quiet --manifest-path bench/peers/Cargo.toml -- --keys 2000 --overwrites 2000 --gets 2000
    scripts/peers.sh etcd >"$work/peers.log" 2>&1 || { cat "$work/peers.log"; return 1; }
    # whatever was built into this directory meanwhile: the server of this tree
    step_binary
    export COFFER_BENCH=$CARGO_TARGET_DIR/ci/coffer-bench
    scripts/compare.sh --quick --out "$work/compare"
    "$COFFER_BENCH" compare --verify "$work/compare"
}

steps=(fmt test clippy doc binary syscalls full_disk etcdctl backup kubernetes fuzz bench planted)
if (($#)); then steps=("$@"); fi

declare -a times
started=$SECONDS
for step in "${steps[@]}"; do
    echo "=== $step"
    begun=$SECONDS
    # In a subshell of its own with errexit on: `if ! step` would switch it off inside.
    set +e
    (set -e; "step_$step")
    status=$?
    set -e
    times+=("$(printf '%-12s %5d s' "$step" $((SECONDS - begun)))")
    if ((status != 0)); then
        printf '%s\n' "${times[@]}"
        echo "check: $step failed"
        exit 1
    fi
done
echo "=== times"
printf '%s\n' "${times[@]}"
echo "check: all ${#steps[@]} steps passed in $((SECONDS - started)) s"
