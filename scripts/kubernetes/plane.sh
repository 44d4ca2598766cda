# The control plane as plain processes on loopback: store, kube-apiserver, kube-controller-manager. Sourced by ../kubernetes.sh.
#
#   etcdctl ----------+
#                     v
#   kubectl, curl -> kube-apiserver -> store (coffer or etcd)
#                     ^
#        kube-controller-manager
#
# What it keeps true: every process, port and file belongs to one run (a directory of its own, ports claimed by mkdir), so two runs may go on
# at once; every wait is a poll with a deadline, and ends early when a process it rests on has died; whatever way the script ends, its processes and
# its directory are gone afterwards (KEEP=1 leaves the directory).

declare -A pids=()          # name -> pid of what runs now; a process killed on purpose is taken out first
declare -a claimed_ports=()
steps_begun=0 steps_passed=0 step_name="" step_start=0

# --- Steps -------------------------------------------------------------------------------------------------------------------------

# step NAME FUNCTION: runs the function in this shell; under set -e its first failing command ends the script, and the exit trap tells the rest.
step() {
    step_name=$1 step_start=$EPOCHREALTIME
    steps_begun=$((steps_begun + 1))
    "$2"
    steps_passed=$((steps_passed + 1))
    printf 'ok %2d  %6.1f s  %s\n' "$steps_begun" "$(seconds_since "$step_start")" "$step_name"
    step_name=""
}

seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }

say() { printf '        %s\n' "$*"; }

# same WHAT EXPECTED FOUND
same() {
    [[ $2 == "$3" ]] && return
    say "$1: expected '$2', found '$3'"
    return 1
}

# at_least WHAT LOWEST FOUND
at_least() {
    [[ $3 =~ ^[0-9]+$ ]] && (($3 >= $2)) && return
    say "$1: expected at least $2, found '$3'"
    return 1
}

# contains WHAT FILE EXTENDED_REGEX
contains() {
    grep -Eq -- "$3" "$2" && return
    say "$1: nothing in ${2##*/} matches $3"
    tail -n 5 "$2" | cut -c 1-300 | sed 's/^/        | /'
    return 1
}

# poll SECONDS WHAT COMMAND...: until the command succeeds; it runs in this shell, so it may set variables.
poll() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000)) what=$2 name
    shift 2
    until "$@" >"$work/poll.out" 2>&1; do
        for name in "${!pids[@]}"; do
            alive "$name" && continue
            say "while waiting for $what: $name has ended by itself"
            return 1
        done
        if ((${EPOCHREALTIME/./} > deadline)); then
            say "waited in vain for $what; the last try said:"
            tail -n 5 "$work/poll.out" | cut -c 1-300 | sed 's/^/        | /'
            return 1
        fi
        sleep 0.1
    done
}

# --- Processes ---------------------------------------------------------------------------------------------------------------------

# launch NAME COMMAND...: output is appended to NAME.log, so that a restarted process goes on in the same log.
launch() {
    local name=$1
    shift
    "$@" >>"$work/$name.log" 2>&1 </dev/null &
    pids[$name]=$!
    disown $! # so that bash does not report its death
}

alive() { kill -0 "${pids[$1]}" 2>/dev/null; }

# halt NAME SIGNAL: sends the signal and waits until the process is gone, with kill -9 after 20 seconds.
halt() {
    local pid=${pids[$1]} deadline=$((SECONDS + 20))
    unset "pids[$1]"
    kill -s "$2" "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        ((SECONDS < deadline)) || kill -s KILL "$pid"
        sleep 0.05
    done
}

# claim_port VARIABLE: a port that nobody listens on. It lies below the range that outgoing connections get theirs from; the directory keeps a second
# run away until the process that the port is meant for listens on it.
claim_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        mkdir "${TMPDIR:-/tmp}/coffer-port-$port" 2>/dev/null || continue
        claimed_ports+=("$port")
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    printf -v "$1" %s "$port"
}

finish() {
    local status=$? name port
    trap - EXIT ERR
    set +e
    if ((status != 0)); then
        [[ -n $step_name ]] && printf 'FAILED %d after %s s: %s\n' "$steps_begun" "$(seconds_since "$step_start")" "$step_name"
        for name in store apiserver controllers; do
            [[ -s $work/$name.log ]] || continue
            printf -- '--- the end of %s.log\n' "$name"
            tail -n 25 "$work/$name.log" | cut -c 1-400
        done
        printf 'steps %d passed %d\n' "$steps_begun" "$steps_passed"
        status=1
    fi
    for name in "${!pids[@]}"; do halt "$name" KILL; done
    wait
    for port in "${claimed_ports[@]}"; do rmdir "${TMPDIR:-/tmp}/coffer-port-$port"; done
    if [[ -n ${KEEP:-} ]]; then echo "kept: $work"; else rm -rf "$work"; fi
    exit "$status"
}

# --- The plane ---------------------------------------------------------------------------------------------------------------------

prepare_plane() {
    claim_port store_port
    claim_port peer_port
    claim_port api_port
    store_url=http://127.0.0.1:$store_port
    api_url=https://127.0.0.1:$api_port
    export ETCDCTL_ENDPOINTS=$store_url KUBECONFIG=$work/kubeconfig HOME=$work

    openssl genrsa -out "$work/sa.key" 2048 2>/dev/null
    openssl rsa -in "$work/sa.key" -pubout -out "$work/sa.pub" 2>/dev/null
    # One certificate is server and authority in one: clients trust exactly this one.
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$work/api.key" -out "$work/api.crt" 2>/dev/null

    cat >"$work/tokens.csv" <<END
admin-token,admin,1,system:masters
controllers-token,system:kube-controller-manager,2
alice-token,alice,3
bob-token,bob,4
END
    write_kubeconfig admin >"$work/kubeconfig"
    write_kubeconfig controllers >"$work/controllers.kubeconfig"
    # The apiserver writes JSON on many lines for curl, and on one for everybody else.
    printf 'silent\nshow-error\nuser-agent = "coffer"\ncacert = "%s"\nheader = "Authorization: Bearer admin-token"\n' "$work/api.crt" >"$work/curl.conf"
}

# write_kubeconfig USER: all users are in it, this one is the current one.
write_kubeconfig() {
    local user
    printf 'apiVersion: v1\nkind: Config\nclusters:\n- name: plane\n  cluster: {server: "%s", certificate-authority: "%s"}\nusers:\n' "$api_url" "$work/api.crt"
    for user in admin controllers alice bob; do printf -- '- name: %s\n  user: {token: %s-token}\n' "$user" "$user"; done
    printf 'contexts:\n- name: plane\n  context: {cluster: plane, user: %s}\ncurrent-context: plane\n' "$1"
}

start_store() {
    launch store "$store_bin" --name kubernetes --data-dir "$work/data" \
        --listen-client-urls "$store_url" --advertise-client-urls "$store_url" \
        --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
        --initial-cluster "kubernetes=http://127.0.0.1:$peer_port"
}

# Config maps bypass the watch cache, so that their lists, pages and watches reach the store itself. The advertised address is from the range kept for
# documentation: loopback is refused as an endpoint of the service "kubernetes", and nobody dials this one.
start_apiserver() {
    launch apiserver kube-apiserver --etcd-servers="$store_url" --etcd-compaction-interval=15s --etcd-count-metric-poll-period=10s \
        --watch-cache-sizes='configmaps#0' --delete-collection-workers=8 --event-ttl=10m \
        --bind-address=127.0.0.1 --secure-port="$api_port" --advertise-address=192.0.2.1 \
        --tls-cert-file="$work/api.crt" --tls-private-key-file="$work/api.key" \
        --token-auth-file="$work/tokens.csv" --authorization-mode=RBAC \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$work/sa.pub" \
        --service-account-signing-key-file="$work/sa.key" --service-cluster-ip-range=10.96.0.0/16
}

# The lease for leadership is long enough to live through a store or an apiserver that is restarted.
start_controllers() {
    launch controllers kube-controller-manager --kubeconfig="$work/controllers.kubeconfig" --secure-port=0 \
        --service-account-private-key-file="$work/sa.key" --root-ca-file="$work/api.crt" --use-service-account-credentials=true \
        --kube-api-qps=500 --kube-api-burst=1000 \
        --leader-elect-lease-duration=60s --leader-elect-renew-deadline=40s --leader-elect-retry-period=2s \
        --node-monitor-period=1s --node-monitor-grace-period=6s --node-startup-grace-period=10s
}

# api METHOD PATH [BODY [CONTENT_TYPE]]: prints the answer, fails on a status from 400 on.
api() {
    curl --config "$work/curl.conf" --max-time 30 --fail-with-body -X "$1" "$api_url$2" \
        ${3:+-H "Content-Type: ${4:-application/json}" --data-binary "$3"}
}

# api_status METHOD PATH [BODY]: prints the status alone; the answer is in the file `answer`.
api_status() {
    curl --config "$work/curl.conf" --max-time 30 -o "$work/answer" -w '%{http_code}' -X "$1" "$api_url$2" \
        ${3:+-H 'Content-Type: application/json' --data-binary "$3"}
}

apiserver_ready() { api GET '/readyz?verbose' | tee "$work/readyz"; }

# metric REGEX: the sum of all samples of the apiserver whose line begins so.
metric() { api GET /metrics | awk -v name="^$1" '$0 ~ name { sum += $NF } END { printf "%d", sum }'; }

revision() { etcdctl get --prefix none --limit 1 -w fields | awk '$1 == "\"Revision\"" { print $3 }'; }

# stored PREFIX: how many keys there are.
stored() { etcdctl get --prefix "$1" --keys-only | grep -c .; }
