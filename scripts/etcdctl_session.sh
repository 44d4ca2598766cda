#!/usr/bin/env bash
# Plays the same commands and cases against etcd and against coffer, both fresh, and shows where their answers differ.
#
#   scripts/etcdctl_session.sh                 all of it
#   scripts/etcdctl_session.sh session         etcdctl commands only (scripts/session/etcdctl.session)
#   scripts/etcdctl_session.sh probe           gRPC cases only (scripts/session/*.cases)
#
# COFFER_BIN     the other server (default target/ci/coffer); etcd itself serves to check the check:
#                COFFER_BIN=$(scripts/peers.sh etcd)/etcd scripts/etcdctl_session.sh
# COFFER_DIFFS   how many differences are shown in full (default 10)
# COFFER_KEEP    a directory to keep both sides' masked transcripts in
#
# Needs what scripts/peers.sh etcd and scripts/peers.sh probe build. Uses free ports of 127.0.0.1.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
other_bin=${COFFER_BIN:-$here/../target/ci/coffer}
diffs_shown=${COFFER_DIFFS:-10}
keep=${COFFER_KEEP:-}
part=${1:-all}
command_within=20
lines_within=10

# Cases that compact come last, because what they leave behind would show in the others.
cases=(range txn watch lease service compact)

say() { printf 'etcdctl_session: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

case $part in all | session | probe) ;; *) die "usage: scripts/etcdctl_session.sh [session|probe]" ;; esac
[ -x "$other_bin" ] || die "no server at $other_bin; build it or set COFFER_BIN"

etcd_bin=$("$here/peers.sh" etcd | tail -n 1)
probe=$("$here/peers.sh" probe | tail -n 1)/probe
etcdctl=$etcd_bin/etcdctl
work=$(mktemp -d)
declare -A server_pid=() address=() peer_address=()
differences=0
[ -z "$keep" ] || { mkdir -p "$keep" && : >"$keep/etcd.session" && : >"$keep/other.session"; }

# All at once, so that none is given out twice.
mapfile -t free_ports < <("$probe" ports 12)

# end_server PID: asks, and insists after five seconds.
end_server() {
    local pid=$1
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..100}; do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

stop_all() {
    local name
    for name in "${!server_pid[@]}"; do
        end_server "${server_pid[$name]}"
        unset "server_pid[$name]"
    done
}

clean_up() {
    local pid
    trap - EXIT
    stop_all
    # Commands that still run: only when this script was interrupted.
    for pid in $(jobs -p); do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- servers ----------------------------------------------------------------------------------------------------------

binary_of() { if [ "$1" = etcd ]; then echo "$etcd_bin/etcd"; else echo "$other_bin"; fi; }

# start SIDE ROLE [FLAG...]
start() {
    local side=$1 role=$2 client peer binary
    shift 2
    client=127.0.0.1:${free_ports[0]}
    peer=127.0.0.1:${free_ports[1]}
    free_ports=("${free_ports[@]:2}")
    binary=$(binary_of "$side")
    "$binary" --name m1 --data-dir "$work/$side-$role" \
        --listen-client-urls "http://$client" --advertise-client-urls "http://$client" \
        --listen-peer-urls "http://$peer" --initial-advertise-peer-urls "http://$peer" --initial-cluster "m1=http://$peer" \
        "$@" >"$work/$side-$role.log" 2>&1 &
    server_pid[$side-$role]=$!
    address[$side-$role]=$client
    peer_address[$side-$role]=$peer
}

await() {
    "$probe" ready "${address[$1]}" "${server_pid[$1]}" || { server_log "$1"; die "$1 does not serve"; }
}

server_log() {
    say "the end of the log of $1:"
    tail -n 20 "$work/$1.log" >&2
}

still_runs() {
    kill -0 "${server_pid[$1]}" 2>/dev/null && return
    server_log "$1"
    die "$1 has ended"
}

# differ TITLE ETCDS OTHERS
differ() {
    differences=$((differences + 1))
    [ "$differences" -le "$diffs_shown" ] || return 0
    printf '\n== %s\n' "$1"
    diff -U 1000 --label etcd --label "$(basename "$other_bin")" "$2" "$3" | tail -n +3 || true
}

# --- etcdctl commands -------------------------------------------------------------------------------------------------

declare -A mask=()         # side -> a sed program
declare -A lease_ids=()    # side -> the ids granted so far, in hexadecimal

# What two servers may answer differently: names of this run's member, and numbers of no meaning to a client.
mask_of() {
    local side=$1 status cluster member
    status=$("$etcdctl" --endpoints "${address[$side-session]}" endpoint status -w json)
    [[ $status =~ \"cluster_id\":([0-9]+),\"member_id\":([0-9]+) ]] || die "no ids in the status of $side: $status"
    cluster=${BASH_REMATCH[1]} member=${BASH_REMATCH[2]}
    printf 's/\\b%s\\b/CLUSTER/g\ns/\\b%x\\b/CLUSTER/g\n' "$cluster" "$cluster"
    printf 's/\\b%s\\b/MEMBER/g\ns/\\b%x\\b/MEMBER/g\n' "$member" "$member"
    printf 's/%s/ENDPOINT/g\ns/%s/PEER/g\n' "${address[$side-session]}" "${peer_address[$side-session]}"
    cat <<'MASK'
s/("raft_term"|"raftTerm"|"raftIndex"|"raftAppliedIndex"|"dbSize"|"dbSizeInUse"|"hash"):[0-9]+/\1:N/g
s/^("RaftTerm"|"RaftIndex"|"RaftAppliedIndex"|"DBSize"|"DBSizeInUse"|"Hash") : [0-9]+/\1 : N/
s/took:? =? ?[0-9.]+[mµn]?s/took TIME/
s/"took":"[^"]*"/"took":TIME/
s/^"Took" : .*/"Took" : TIME/
s/"ts":"[^"]*"/"ts":TIME/
s/etcd-endpoints:\/\/0x[0-9a-f]+/etcd-endpoints:\/\/POINTER/
s/LocalAddr: '[^']*'/LocalAddr: LOCAL/
MASK
}

# For lease timetolive.
left_mask='s/remaining\([0-9]+s\)/remaining(LEFT)/
s/"ttl":[1-9][0-9]*,/"ttl":LEFT,/
s/^"TTL" : [1-9][0-9]*$/"TTL" : LEFT/'

# For tables and lists whose numbers have no name beside them. Neighbours need the second round.
loose_mask='s/[0-9.]+ ?(B|kB|MB|GB|KiB|MiB|GiB)\b/SIZE/g
s/[0-9.]+(ms|µs|s)\b/TIME/g
s/\b[0-9]+%/PERCENT/g
s/([,│] *)[0-9]+\b([^.])/\1N\2/g
s/([,│] *)[0-9]+\b([^.])/\1N\2/g
s/, [0-9]+$/, N/
s/[─┌┐└┘├┤┬┴┼ ]+/ /g'

# play SIDE OUT UPTO ARGUMENTS: one etcdctl command, its input from $work/stdin, everything it says into OUT.
play() {
    local side=$1 out=$2 upto=$3 line=$4 code=0 arguments=() number=0 id pid=
    trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; exit 143' TERM
    for id in ${lease_ids[$side]:-}; do
        number=$((number + 1))
        local "lease$number=$id"
    done
    echo 'did not run' >"$out.raw"
    : >"$out.stdout" >"$out.stderr"
    eval "arguments=($line)"
    export ETCDCTL_ENDPOINTS=http://${address[$side-session]}
    if [ -z "$upto" ]; then
        timeout "$command_within" "$etcdctl" "${arguments[@]}" <"$work/stdin" >"$out.stdout" 2>"$out.stderr" &
        pid=$!
        wait "$pid" || code=$?
    else
        # The input stays open, so that an interactive watch does not end by itself.
        mkfifo "$out.input"
        exec 7<>"$out.input"
        cat "$work/stdin" >&7
        timeout "$command_within" "$etcdctl" "${arguments[@]}" <&7 >"$out.stdout" 2>"$out.stderr" &
        pid=$!
        code='stopped too early'
        for ((i = 0; i < lines_within * 50; i++)); do
            if [ "$(wc -l <"$out.stdout")" -ge "$upto" ]; then code=stopped; break; fi
            if ! kill -0 "$pid" 2>/dev/null; then code=ended; break; fi
            sleep 0.02
        done
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        head -n "$upto" "$out.stdout" >"$out.head"
        mv "$out.head" "$out.stdout"
        rm "$out.input"
        exec 7>&-
    fi
    {
        cat "$out.stdout"
        sed 's/^/stderr: /' "$out.stderr"
        echo "exit: $code"
    } >"$out.raw"
}

# granted_id OUT: the id of the lease that a command granted, in hexadecimal; empty when it granted none.
granted_id() {
    local id
    id=$(sed -nE 's/^lease ([0-9a-f]+) granted .*/\1/p' "$1.stdout")
    if [ -z "$id" ]; then
        id=$(sed -nE 's/.*"ID" ?: ?([0-9]+).*/\1/p' "$1.stdout")
        [ -z "$id" ] || id=$(printf '%x' "$id")
    fi
    echo "$id"
}

# leases_granted: remembers what lease was granted and masks its id from now on. Both sides count alike: where only
# etcd granted one, the other's has the id 0.
leases_granted() {
    local side id number
    [ -n "$(granted_id "$work/etcd")" ] || return 0
    for side in etcd other; do
        id=$(granted_id "$work/$side")
        id=${id:-0}
        lease_ids[$side]+=" $id"
        number=$(wc -w <<<"${lease_ids[$side]}")
        [ "$id" = 0 ] || mask[$side]+=$(printf '\ns/\\b0*%s\\b/LEASE%s/g\ns/\\b%d\\b/LEASE%s/g' "${id#"${id%%[!0]*}"}" "$number" "0x$id" "$number")
    done
}

# both TITLE UPTO LOOSE ARGUMENTS
both() {
    local title=$1 upto=$2 loose=$3 line=$4 side program pids=()
    for side in etcd other; do
        play "$side" "$work/$side" "$upto" "$line" &
        pids+=($!)
    done
    wait "${pids[@]}"
    [[ $line != "lease grant"* ]] || leases_granted
    for side in etcd other; do
        program=${mask[$side]}
        [[ $line != "lease timetolive"* ]] || program+=$'\n'$left_mask
        [ -z "$loose" ] || program+=$'\n'$loose_mask
        sed -E "$program" "$work/$side.raw" >"$work/$side.masked"
        [ -z "$keep" ] || { echo "\$ etcdctl $title"; cat "$work/$side.masked"; } >>"$keep/$side.session"
    done
    commands=$((commands + 1))
    if cmp -s "$work/etcd.masked" "$work/other.masked"; then
        identical=$((identical + 1))
    else
        differ "etcdctl $title" "$work/etcd.masked" "$work/other.masked"
        still_runs etcd-session
        still_runs other-session
    fi
}

run_session() {
    local side line next number=0 lines upto loose rest
    commands=0 identical=0
    for side in etcd other; do start "$side" session --watch-progress-notify-interval=200ms; done
    for side in etcd other; do await "$side-session"; mask[$side]=$(mask_of "$side"); done
    mapfile -t lines <"$here/session/etcdctl.session"
    while [ "$number" -lt "${#lines[@]}" ]; do
        line=${lines[number]}
        number=$((number + 1))
        [[ -z $line || $line == "#"* ]] && continue
        : >"$work/stdin"
        while next=${lines[number]:-}; [[ $next == "|"* ]]; do
            next=${next#|}
            printf '%s\n' "${next# }" >>"$work/stdin"
            number=$((number + 1))
        done
        upto='' loose='' rest=$line
        while [[ $rest == "["* ]]; do
            case $rest in
                "[upto "*) upto=${rest#"[upto "}; upto=${upto%%]*} ;;
                "[loose]"*) loose=1 ;;
                *) die "etcdctl.session:$number: what is ${rest%%]*}]?" ;;
            esac
            rest=${rest#*] }
        done
        both "$rest" "$upto" "$loose" "$rest"
    done
    stop_all
    echo "commands $commands identical $identical"
}

# --- gRPC cases -------------------------------------------------------------------------------------------------------

# play_cases ROLE FILE...: on both sides at once. Only etcd has to come to the end of it.
play_cases() {
    local role=$1 side pids=()
    shift
    for side in etcd other; do
        "$probe" run "${address[$side-$role]}" "$@" >"$work/$side-$role.transcript" 2>"$work/$side-$role.trouble" &
        pids+=($!)
    done
    wait "${pids[0]}" || { cat "$work/etcd-$role.trouble" >&2; die "the cases did not play to their end against etcd"; }
    wait "${pids[1]}" || { cat "$work/other-$role.trouble" >&2; say "the cases did not play to their end against $other_bin"; }
}

run_probe() {
    local side files name block others total=0 same=0 title
    for side in etcd other; do
        start "$side" probe --watch-progress-notify-interval=200ms
        start "$side" quota --quota-backend-bytes=4000000
    done
    for name in etcd-probe other-probe etcd-quota other-quota; do await "$name"; done
    files=("${cases[@]/#/$here/session/}")
    files=("${files[@]/%/.cases}")
    play_cases probe "${files[@]}"
    play_cases quota "$here/session/quota.cases"
    for side in etcd other; do
        mkdir "$work/$side.blocks"
        [ -z "$keep" ] || cat "$work/$side-probe.transcript" "$work/$side-quota.transcript" >"$keep/$side.probe"
        for name in probe quota; do
            awk -v start="$work/$side.blocks/$name" '/^case /{n++; file = sprintf("%s%04d", start, n)} NF {print > file}' \
                "$work/$side-$name.transcript"
        done
    done
    for block in "$work"/etcd.blocks/*; do
        total=$((total + 1))
        others=$work/other.blocks/$(basename "$block")
        [ -f "$others" ] || : >"$others"
        if cmp -s "$block" "$others"; then
            same=$((same + 1))
        else
            title=$(head -n 1 "$block")
            differ "$title" "$block" "$others"
        fi
    done
    for name in etcd-probe other-probe etcd-quota other-quota; do still_runs "$name"; done
    stop_all
    echo "probe cases $total identical $same"
}

case $part in all | session) run_session ;; esac
case $part in all | probe) run_probe ;; esac
[ "$differences" -eq 0 ] || die "$differences differences"
