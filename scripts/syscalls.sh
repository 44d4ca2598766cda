#!/usr/bin/env bash
# Shows which system calls durable puts make: with io_uring, io_uring_enter and no fdatasync; where io_uring_setup is
# refused, the reverse. Needs strace and etcdctl (scripts/peers.sh etcd).
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${COFFER_BIN:-$PWD/target/ci/coffer}
etcdctl=$(scripts/peers.sh etcd | tail -1)/etcdctl
command -v strace >/dev/null || { apt-get update -qq && apt-get install -y -qq strace >/dev/null; }
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-syscalls.XXXXXX")
server=
finish() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# calls_of NAME [strace options]: 200 puts against a server under strace -f -c; leaves the table in $work/NAME
calls_of() {
    local name=$1 port peer
    shift
    port=$(free_port) peer=$(free_port)
    strace -f -c -o "$work/$name" "$@" "$bin" --data-dir "$work/$name.data" \
        --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "default=http://127.0.0.1:$peer" >"$work/$name.log" 2>&1 &
    server=$!
    for _ in $(seq 300); do
        grep -q 'ready to serve client requests' "$work/$name.log" && break
        sleep 0.1
    done
    for i in $(seq 200); do echo "put key$i value$i"; done >"$work/puts"
    # one etcdctl for all of them: a transaction each would hide the puts
    while read -r line; do echo "$line"; done <"$work/puts" | xargs -P 8 -n 3 "$etcdctl" --endpoints "127.0.0.1:$port" >"$work/$name.out"
    [[ $(grep -c OK "$work/$name.out") == 200 ]] || { cat "$work/$name.log"; echo "syscalls: puts failed"; exit 1; }
    # strace passes the signal on to its child and writes its table once that is gone
    pkill -TERM -P "$server" || true
    wait "$server" || true
    server=
}

count() { awk -v call="$2" '$NF == call { n += $4 } END { print n + 0 }' "$work/$1"; }

calls_of uring
calls_of refused -e inject=io_uring_setup:error=EPERM
failed=0
for row in "uring io_uring_enter some" "uring fdatasync none" "uring fsync few" "refused io_uring_enter none" "refused fdatasync some"; do
    read -r run call want <<<"$row"
    n=$(count "$run" "$call")
    echo "syscalls: 200 puts, $run: $call $n"
    case $want in
        some) ((n >= 20)) || failed=1 ;;
        none) ((n == 0)) || failed=1 ;;
        few) ((n <= 20)) || failed=1 ;;
    esac
done
if ((failed)); then
    cat "$work/uring" "$work/refused"
    echo "syscalls: FAILED"
    exit 1
fi
echo "syscalls: as they should be"
