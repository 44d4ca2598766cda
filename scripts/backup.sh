#!/usr/bin/env bash
# Backs up a member that is being written to, with etcd's own etcdctl, restores the backup, and compares.
#
#   scripts/backup.sh
#
# COFFER_BIN     the server (default target/ci/coffer)
#
#   fill > write on and on > etcdctl snapshot save > status, HashKV and contents at its revision
#        > restore > start > the same HashKV, the same contents > check of both directories
#
# Needs what scripts/peers.sh etcd and scripts/peers.sh probe build. Uses free ports of 127.0.0.1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=$(realpath "${COFFER_BIN:-$here/../target/ci/coffer}")

say() { printf 'backup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ -x "$bin" ] || die "no server at $bin; build it or set COFFER_BIN"
etcd_bin=$("$here/peers.sh" etcd | tail -n 1)
probe=$("$here/peers.sh" probe | tail -n 1)/probe
work=$(mktemp -d "${TMPDIR:-/var/tmp}/coffer-backup.XXXXXX")
mapfile -t ports < <("$probe" ports 4)
cd "$work"
server=0 writer=0

end() {
    [ "$1" != 0 ] || return 0
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

clean_up() {
    trap - EXIT
    end "$writer"
    end "$server"
    cd /
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The flags that say who the member is; restore takes the same.
who() { printf -- '--name m1 --initial-advertise-peer-urls http://127.0.0.1:%s --initial-cluster m1=http://127.0.0.1:%s' "$1" "$1"; }

# start DIRECTORY CLIENT_PORT PEER_PORT
start() {
    # shellcheck disable=SC2046
    "$bin" --data-dir "$1" $(who "$3") --listen-peer-urls "http://127.0.0.1:$3" \
        --listen-client-urls "http://127.0.0.1:$2" --advertise-client-urls "http://127.0.0.1:$2" >"$1.log" 2>&1 &
    server=$!
    "$probe" ready "127.0.0.1:$2" "$server" || { tail -n 20 "$1.log" >&2; die "the member on $1 does not serve"; }
    export ETCDCTL_ENDPOINTS=http://127.0.0.1:$2
}

ctl() { "$etcd_bin/etcdctl" "$@"; }
field() { sed -nE "s/.*\"$1\":\"?([0-9]+).*/\1/p"; }
hash_at() { ctl endpoint hashkv --rev "$1" -w json | field hash; }
# All that a range shows but who answered.
contents_at() { ctl get '' --prefix --rev "$1" -w json | sed 's/"header":{[^}]*},//'; }

start old "${ports[0]}" "${ports[1]}"
for batch in {1..20}; do
    {
        echo
        for key in {1..100}; do printf 'put fill/%02d/%03d "%0256d"\n' "$batch" "$key" "$key"; done
        echo
        echo
    } | ctl txn >/dev/null
done
ctl del fill/03/ --prefix >/dev/null
ctl lease grant 3600 >/dev/null

(number=0; while :; do number=$((number + 1)); ctl put "while/$((number % 50))" "$number" >/dev/null; done) &
writer=$!
while [ "$(ctl get while/ --prefix --count-only -w fields | sed -n 's/"Count" : //p')" -lt 5 ]; do sleep 0.1; done

ctl snapshot save backup.db >saved 2>save.log || { cat save.log >&2; die "etcdctl snapshot save failed"; }
grep -qx 'Snapshot saved at backup.db' saved || die "etcdctl said: $(cat saved)"
grep -qx 'Server version 3.7.0' saved || die "etcdctl said: $(cat saved)"
[ "$(($(stat -c %s backup.db) % 512))" = 32 ] || die "the backup is $(stat -c %s backup.db) bytes long"
"$bin" snapshot status backup.db -w json >status || die "the backup is not whole"
revision=$(field revision <status) hash=$(field hash <status)
# The writer went on meanwhile and afterwards.
while [ "$(ctl get x -w json | field revision)" -le "$((revision + 2))" ]; do sleep 0.1; done
end "$writer"
writer=0
[ "$(hash_at "$revision")" = "$hash" ] || die "HashKV at $revision is $(hash_at "$revision"), the backup's $hash"
contents_at "$revision" >old.contents
say "saved revision $revision, hash $hash, $(stat -c %s backup.db) bytes, $(field totalKey <status) keys"
kill -KILL "$server"
wait "$server" 2>/dev/null || true
server=0

# shellcheck disable=SC2046
"$bin" snapshot restore backup.db --data-dir new $(who "${ports[3]}") 2>restore.log || { cat restore.log >&2; die "restore failed"; }
# shellcheck disable=SC2046
if "$bin" snapshot restore backup.db --data-dir new $(who "${ports[3]}") 2>/dev/null; then die "restored over a directory"; fi
start new "${ports[2]}" "${ports[3]}"
[ "$(hash_at 0)" = "$hash" ] || die "HashKV after the restore is $(hash_at 0), the backup's $hash"
contents_at "$revision" >new.contents
cmp -s old.contents new.contents || { diff old.contents new.contents | head -c 2000 >&2; die "the contents differ"; }
[ "$(ctl lease list -w json | grep -o '"id":' | wc -l)" = 1 ] || die "the lease is gone"
ctl put after restore >/dev/null
[ "$(ctl get after -w json | field mod_revision)" = "$((revision + 1))" ] || die "the next revision is not $((revision + 1))"
end "$server"
server=0

for directory in old new; do
    "$bin" check "$directory" >report || { cat report >&2; die "the check of $directory failed"; }
done
say "restored, compared and checked"
