#!/usr/bin/env bash
# etcd's own tests against coffer, those that one member without TLS and users can be asked for: commands of etcdctl (common), whole
# processes (e2e), and random traffic with kill -9, whose history must be linearizable and whose watches and reads of old revisions
# must be what the log says (robustness).
#
#   scripts/etcd_suite.sh [--rounds 1] [--only common|e2e|robustness]
#
# COFFER_BIN           the server (default target/ci/coffer)
# COFFER_LOG_ENTRIES   engine's example log_entries (default target/ci/examples/log_entries, built if it is not there)
# --rounds     of robustness: four kinds of traffic each, about 15 s
#
# Needs what scripts/peers.sh etcd and suite build. etcd's tests take the ports 2379, 2380 and 20000 to 20014 of this machine.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(realpath "${COFFER_BIN:-$here/../target/ci/coffer}")
rounds=1 only=
while (($#)); do
    case $1 in
        --rounds) rounds=$2 ;;
        --only) only=$2 ;;
        *) echo "etcd_suite: unknown option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
[ -x "$bin" ] || { echo "etcd_suite: no server at $bin; build it or set COFFER_BIN" >&2; exit 1; }
export COFFER_LOG_ENTRIES=${COFFER_LOG_ENTRIES:-${CARGO_TARGET_DIR:-$here/../target}/ci/examples/log_entries}
[ -x "$COFFER_LOG_ENTRIES" ] || (cd "$here/.." && cargo build --profile ci -p coffer-engine --example log_entries)
COFFER_LOG_ENTRIES=$(realpath "$COFFER_LOG_ENTRIES")
etcd=$("$here/peers.sh" etcd | tail -n 1)
suite=$("$here/peers.sh" suite | tail -n 1)
tests=$(realpath "$suite/../tests")
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-suite.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/tmp"
ln -s "$bin" "$work/bin/etcd"
ln -s "$etcd/etcdctl" "$etcd/etcdutl" "$work/bin/"
# where the tests stand: some start a server there, which leaves its directory behind
cp -r "$tests/fixtures" "$work/fixtures"

# What needs more than is there is left out by name: auth, TLS, clusters, the JSON gateway, proxies, a bbolt file, failpoints.
common='^(TestAlarm|TestAlarmlistOnMemberRestart|TestCompact|TestVerifyHashKVAfterCompactAndDefrag|TestKV(Put|Get|GetStream|Delete)|TestLease.*|TestStatus|TestTxn.*|TestWaitLeader|TestWatch|TestMemberList)$/^NoTLS$'
e2e='^('
e2e+='TestInPlaceRecovery'
e2e+='|TestCtlV3(SerializableRead|LinearizableRead|CompletionBash|PutTimeout|PutIgnoreValue|PutIgnoreLease|GetTimeout|GetRev|GetMinMaxCreateModRev|GetKeysOnly|GetCountOnly|DelTimeout|LeaseKeepAlive(DisableFastKeepAlive)?|MakeMirror.*|MemberList(WithHex)?|RoleAddTimeout|Version|Watch(Timeout|Interactive)?|Elect|Lock|LockWithCmd|DialWithHTTPScheme)'
e2e+='|TestRemoveNonExistingMember|TestClusterVersion|TestDefragNoSpace|TestEtcdUnixPeers|TestBootstrapDefragFlag'
e2e+='|TestSnapshotCatchupEntriesFlag|TestEtcdDeprecatedFlags|TestV2DeprecationEnforceDefaultValue'
e2e+='|TestEtcdAdvertiseClientUnix|TestEtcdHealthyWithTinySnapshotCatchupEntries|TestFailoverOnDefrag'
e2e+='|TestGracefulShutdown|TestHTTPHealthHandler|TestHTTPLivezReadyzHandler|TestNoErrorLogsDuringNormalOperations'
e2e+='|TestServerJsonLogging|TestV3Metrics(Secure|Insecure)|TestNoMetricsMissing|TestTxnRangeConsistency'
e2e+='|TestCurlWatchIssue19509|TestLeaseRevoke_.*|TestWatchDelay.*|TestDeleteEventDrop_Issue18089'
e2e+='|TestStartWatcherFromCompactedRevision'
e2e+=')$'
# cases of these, by name
left_out='.*/(.*auto_tls|.*metrics_of_3|network_partitioned|corrupt)'
robustness='^TestRobustnessExploratory$/.*/^ClusterOfSize1$'

# run NAME EXPRESSION [OPTIONS]
run() {
    local name=$1 expression=$2 log=$work/$1.log begun=$SECONDS passed
    shift 2
    [[ -z $only || $only == "$name" ]] || return 0
    mkdir "$work/$name"
    (
        cd "$work/$name"
        E2E_TEST_MINIMAL=true RESULTS_DIR=$work/results TMPDIR=$work/tmp "$suite/$name.test" -bin-dir "$work/bin" -cert-dir "$work/fixtures" \
            -test.v -test.timeout 60m -test.run "$expression" "$@" >"$log" 2>&1
    ) || {
        grep -aE '^ *--- FAIL' "$log" || true
        cp "$log" "${TMPDIR:-/var/tmp}/coffer-suite-$name.log"
        echo "etcd_suite: $name failed; ${TMPDIR:-/var/tmp}/coffer-suite-$name.log" >&2
        exit 1
    }
    passed=$(grep -acE '^ *--- PASS' "$log" || true)
    ((passed > 0)) || { echo "etcd_suite: $name ran nothing" >&2; exit 1; }
    echo "etcd_suite: $name: $passed passed (each case counted), $(grep -acE '^ *--- SKIP' "$log" || true) skipped, $((SECONDS - begun)) s"
    if [[ $name == robustness ]]; then
        grep -aq 'Linearization success' "$log" || { echo "etcd_suite: no history was judged" >&2; exit 1; }
        told() { grep -ac "$1" "$log" || true; }
        echo "etcd_suite: $(told 'Linearization success') histories with kill -9 linearizable, $(told 'not judged in time') not judged within a minute;" \
            "by the log, watches of $(told 'Watch validation success') and reads of old revisions of $(told 'Serializable validation success') as they must be"
    fi
}

run common "$common"
run e2e "$e2e" -test.skip "$left_out"
run robustness "$robustness" -test.count "$rounds"
