#!/usr/bin/env bash
# coffer beside etcd 3.7.3 and servers that do nothing: the same work, one go, three rounds; the report with its plots goes to
# bench/results/DATE-COMMIT. About half an hour on an otherwise idle machine. docs/benchmarks.md explains each figure.
#
#   scripts/compare.sh                                    the standard run
#   scripts/compare.sh --quick                            a run of a few minutes that shows that all works
#   scripts/compare.sh --keys N --rounds N --seconds S --servers coffer,etcd --out DIR
#   scripts/compare.sh --scale clients|keys|values|watchers    what a request costs as the work grows
#
# All options: coffer-bench compare --help. Builds in the release profile, unless COFFER_BIN and COFFER_BENCH name binaries;
# etcd is built by scripts/peers.sh, unless ETCD_BIN names one. The data stands below TMPDIR, or /var/tmp: on the disk that is
# to be measured.
set -euo pipefail
cd "$(dirname "$0")/.."

command="scripts/compare.sh${*:+ $*}"
if [[ -z ${COFFER_BIN:-} || -z ${COFFER_BENCH:-} ]]; then
    cargo build --release -p coffer-server -p coffer-bench
    target=${CARGO_TARGET_DIR:-$PWD/target}
    COFFER_BIN=$target/release/coffer COFFER_BENCH=$target/release/coffer-bench
fi
ETCD_BIN=${ETCD_BIN:-$(scripts/peers.sh etcd | tail -n 1)/etcd}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-compare.XXXXXX")
pid=
# Asked to end, the program ends its servers first.
clean_up() {
    if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$COFFER_BENCH" compare --coffer "$COFFER_BIN" --etcd "$ETCD_BIN" --data "$work" --command "$command" "$@" &
pid=$!
status=0
wait "$pid" || status=$?
pid=
exit "$status"
