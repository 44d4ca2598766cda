#!/usr/bin/env bash
# A member on a small file system that fills up: puts are refused with etcd's NOSPACE error, reads go on, deletes and
# compaction go through, and when the fillers are gone puts work again by themselves; then a restart finds all. Once with
# 16 MB that one file fills, once with room left and no inode for a further file.
# Needs root for the loop device (says so and passes over the test where it cannot mount) and etcdctl.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${COFFER_BIN:-$PWD/target/ci/coffer}
etcdctl=$(scripts/peers.sh etcd | tail -1)/etcdctl
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-disk.XXXXXX")
server=
finish() {
    [[ -z $server ]] || { kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
    umount "$work/mnt" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

mkdir "$work/mnt"
file_system() { # SIZE [MKFS OPTION ...]
    truncate -s "$1" "$work/image"
    mkfs.ext4 -q -F "${@:2}" "$work/image"
    if ! mount -o loop "$work/image" "$work/mnt" 2>"$work/mount.log"; then
        cat "$work/mount.log"
        echo "full_disk: SKIPPED, no loop device can be mounted here"
        exit 0
    fi
}
fill_blocks() { dd if=/dev/zero of="$work/mnt/filler" bs=64k 2>/dev/null || true; }
fill_inodes() {
    local i
    for ((i = 0; i < 1000; i++)); do
        { : >"$work/mnt/filler$i"; } 2>/dev/null || return 0
    done
    die "there are still inodes"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port) peer=$(free_port)
start() {
    : >"$work/log"
    "$bin" --data-dir "$work/mnt/data" \
        --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "default=http://127.0.0.1:$peer" >>"$work/log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        grep -q 'ready to serve client requests' "$work/log" && return
        sleep 0.1
    done
    die "the member does not start"
}
die() {
    tail -30 "$work/log"
    df "$work/mnt"; ls -l "$work/mnt" "$work/mnt/data"/* || true
    echo "full_disk: FAILED: $1"
    exit 1
}
ctl() { "$etcdctl" --endpoints "127.0.0.1:$port" --command-timeout 20s "$@"; }

value=$(head -c 50000 /dev/zero | tr '\0' v)
fills_up() { # blocks|inodes
    local kind=$1 acknowledged=0 refused= resumed= i out
    start
    ctl put first 1 >/dev/null
    "fill_$kind"
    for i in $(seq 400); do
        if out=$(ctl put "key$i" "$value" 2>&1); then
            acknowledged=$i
        else
            refused=$out
            break
        fi
    done
    [[ $refused == *"mvcc: database space exceeded"* ]] || die "expected NOSPACE after $acknowledged puts, got: ${refused:-no refusal}"
    kill -0 "$server" 2>/dev/null || die "the member is gone"
    [[ $(ctl get first --print-value-only) == 1 ]] || die "a read failed on the full disk"
    [[ $(ctl get key --prefix --count-only --write-out fields | sed -n 's/"Count" : //p') == "$acknowledged" ]] || die "an acknowledged put is not there, or a refused one is"
    [[ $(ctl del key1) == 1 ]] || die "a delete was refused on the full disk"
    echo "full_disk: no $kind: $acknowledged puts of 50 kB, then refused; reads and deletes went on"
    rm "$work/mnt/filler"*
    for i in $(seq 100); do
        if ctl put resumed "$i" >/dev/null 2>&1; then
            resumed=$i
            break
        fi
        sleep 0.1
    done
    [[ -n $resumed ]] || die "puts are still refused 10 s after space came back"
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    start
    [[ $(ctl get resumed --print-value-only) == "$resumed" ]] || die "the put after the full disk is lost"
    [[ $(ctl get key --prefix --count-only --write-out fields | sed -n 's/"Count" : //p') == $((acknowledged - 1)) ]] || die "the restart lost or found puts"
    echo "full_disk: no $kind: resumed by itself; a restart after kill -9 found all"
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
    umount "$work/mnt"
}

file_system 16M
fills_up blocks
file_system 64M -N 64
fills_up inodes
