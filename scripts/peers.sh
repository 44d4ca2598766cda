#!/usr/bin/env bash
# Builds the programs coffer is measured against, from their published Go modules, outside the tree.
#
#   scripts/peers.sh etcd     etcd, etcdctl, etcdutl
#   scripts/peers.sh kube     kube-apiserver, kube-controller-manager, kubectl
#   scripts/peers.sh probe    the gRPC client in scripts/session/probe
#   scripts/peers.sh suite    etcd's own tests, for one member without TLS; their tree stands beside the binaries
#
# The last line on stdout is the directory that holds the binaries; everything else goes to stderr.
# Each result lives in $COFFER_PEERS/<name>-<version>/bin (default ~/.cache/coffer-peers) and is reused while it is there.
# A build works in a directory of its own and is renamed when it is whole, so an interrupted one leaves nothing that could
# be taken for a result; a lock makes a second caller wait for the first.
#
# Needs: go, and a Go module proxy. A first build takes about a minute for etcd and for its tests, and several for kube.
set -euo pipefail

ETCD_VERSION=3.7.3
KUBE_VERSION=1.37.2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=${COFFER_PEERS:-$HOME/.cache/coffer-peers}

say() { printf 'peers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# build_go OUTPUT PACKAGE [LDFLAGS]
build_go() {
    say "building $(basename "$1")"
    CGO_ENABLED=0 go build -mod=mod -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" -o "$1" "$2" >&2
}

# A scratch module that requires the released commands; their own go.mod files say the rest.
build_etcd() {
    local work=$1 module
    {
        echo 'module coffer.peers/etcd'
        echo "go $(go_language)"
        for module in server etcdctl etcdutl; do
            echo "require go.etcd.io/etcd/$module/v3 v$ETCD_VERSION"
        done
    } >"$work/go.mod"
    cd "$work"
    build_go "$work/bin/etcd" go.etcd.io/etcd/server/v3
    build_go "$work/bin/etcdctl" go.etcd.io/etcd/etcdctl/v3
    build_go "$work/bin/etcdutl" go.etcd.io/etcd/etcdutl/v3
}

# k8s.io/kubernetes takes its libraries from its own tree; as a dependency it needs each one pointed at its release.
build_kube() {
    local work=$1 library own
    local at="k8s.io/kubernetes@v$KUBE_VERSION"
    local libraries=v0.${KUBE_VERSION#1.}
    own=$(cd "$work" && go mod download -json "$at" | sed -n 's/^\t*"GoMod": "\(.*\)",*$/\1/p')
    [ -f "$own" ] || die "cannot fetch $at"
    {
        echo 'module coffer.peers/kube'
        echo "go $(go_language)"
        echo "require k8s.io/kubernetes v$KUBE_VERSION"
        sed -n 's,^[[:space:]]*\(k8s\.io/[^ ]*\) v0\.0\.0$,\1,p' "$own" | while read -r library; do
            echo "replace $library => $library $libraries"
        done
    } >"$work/go.mod"
    local version=k8s.io/component-base/version flags
    flags="-X $version.gitVersion=v$KUBE_VERSION -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$KUBE_VERSION")"
    flags+=" -X $version.gitTreeState=archive"
    cd "$work"
    build_go "$work/bin/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver "$flags"
    build_go "$work/bin/kube-controller-manager" k8s.io/kubernetes/cmd/kube-controller-manager "$flags"
    build_go "$work/bin/kubectl" k8s.io/kubernetes/cmd/kubectl "$flags"
}

build_probe() {
    local work=$1
    cp "$here"/session/probe/* "$work/"
    cd "$work"
    CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -o "$work/bin/probe" . >&2
}

# etcd's tests, changed in what one member cannot be asked for: clusters of three, TLS, failpoints inside the server,
# and the history, which is read from coffer's log instead of etcd's (with the larger of two snapshot counts all of it is there).
build_suite() {
    local work=$1 own tests
    own=$(cd "$work" && go mod download -json "go.etcd.io/etcd/tests/v3@v$ETCD_VERSION" | sed -n 's/^\t*"Dir": "\(.*\)",*$/\1/p')
    [ -d "$own" ] || die "cannot fetch etcd's tests"
    tests=$work/tests
    cp -r "$own" "$tests"
    chmod -R u+w "$tests"
    cd "$tests"
    sed -i -e '/^replace ($/,/^)$/d' -e '/^toolchain /d' go.mod
    edit framework/e2e/cluster.go 's/ClusterSize: *3,/ClusterSize: 1,/'
    edit framework/e2e/cluster.go 's/c\.ClusterSize = size/c.ClusterSize = min(size, 1)/'
    edit framework/e2e/cluster.go 's/c\.IsPeerTLS = isPeerTLS/c.IsPeerTLS = false/'
    edit framework/e2e/cluster.go 's/c\.IsPeerAutoTLS = isPeerAutoTLS/c.IsPeerAutoTLS = false/'
    edit framework/e2e/cluster.go 's/c\.Client\.ConnectionType = clientConnType/c.Client.ConnectionType = ClientNonTLS/'
    edit e2e/txn_range_consistency_test.go 's/rand\.Intn(3)/rand.Intn(1)/'
    edit e2e/watch_test.go 's/e2e\.ClientTLS/e2e.ClientNonTLS/'
    edit robustness/scenarios/scenarios.go 's/WithGoFailEnabled(true)/WithGoFailEnabled(false)/'
    edit robustness/scenarios/scenarios.go 's/WithSnapshotCount(50, 100, 1000)/WithSnapshotCount(50, 100000)/'
    edit robustness/main_test.go 's/^\terr = r\.SaveEtcdData()$/\terr = nil/'
    edit robustness/main_test.go 's/report\.PersistedRequestsCluster(lg, c)/report.CofferRequests(c)/'
    cp "$here/session/suite/coffer.go" robustness/report/
    # a history with many requests whose end nobody saw may take for ever to judge
    edit robustness/main_test.go 's/5\*time\.Minute/time.Minute/'
    edit robustness/main_test.go 's/^\terr = result\.Error()$/\tif s := result.Linearization.Status; s == validate.Timeout || s == validate.DeadlineExceeded {\n\t\tpanicked = false\n\t\tt.Skip("not judged in time")\n\t}\n&/'
    local package
    for package in common e2e robustness; do
        say "building etcd's tests: $package"
        go test -mod=mod -tags e2e -vet=off -c -o "$work/bin/$package.test" "./$package" >&2
    done
}

# edit FILE EXPRESSION: it must change something
edit() {
    local before
    before=$(sha256sum <"$1")
    sed -i -e "$2" "$1"
    [ "$before" != "$(sha256sum <"$1")" ] || die "etcd's tests: $2 fits nothing in $1"
}

go_language() { go env GOVERSION | sed -n 's/^go\([0-9]*\.[0-9]*\).*/\1.0/p'; }

probe_version() {
    (cd "$here/session/probe" && sha256sum -- * | sha256sum | cut -c1-16)
}

case ${1:-} in
    etcd) version=$ETCD_VERSION ;;
    kube) version=$KUBE_VERSION ;;
    probe) version=$(probe_version) ;;
    suite) version=$ETCD_VERSION-$(cat "$here/peers.sh" "$here/session/suite/coffer.go" | sha256sum | cut -c1-16) ;;
    *) die "usage: scripts/peers.sh etcd|kube|probe|suite" ;;
esac
name=$1
target=$peers/$name-$version
work=

command -v go >/dev/null || die "go is not installed"
mkdir -p "$peers"
exec 9>"$peers/.$name.lock"
flock 9

if [ ! -d "$target" ]; then
    rm -rf "$peers/.$name".*.partial
    work=$(mktemp -d "$peers/.$name.XXXXXX.partial")
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    mkdir "$work/bin"
    say "$name $version into $target"
    export GOWORK=off
    ("build_$name" "$work")
    mv -T "$work" "$target"
fi
echo "$target/bin"
