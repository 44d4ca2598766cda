#!/usr/bin/env bash
# A real Kubernetes control plane over the store, driven step by step and checked at each.
#
#   scripts/kubernetes.sh coffer      over coffer (COFFER_BIN, default target/ci/coffer)
#   scripts/kubernetes.sh etcd        the same over etcd: it must print the same number of steps
#
# Prints a line per step and at last `steps N passed N`; the first step that fails shows the ends of the logs and makes the status 1.
# scripts/peers.sh builds the foreign programs; beyond them only bash, curl, openssl and the usual small tools are needed.
# KEEP=1 leaves the working directory with its logs behind.
#
# kubernetes/plane.sh holds the steps' machinery and the processes, kubernetes/stand_in.sh the scheduler and kubelets that are not there.
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
export LC_ALL=C NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

case ${1:-} in
coffer)
    store_bin=$(realpath -m -- "${COFFER_BIN:-$root/target/ci/coffer}")
    [[ -x $store_bin ]] || { echo "no store to run: $store_bin is not there" >&2; exit 2; }
    ;;
etcd) store_bin=etcd ;;
*)
    echo "usage: ${0##*/} coffer|etcd" >&2
    exit 2
    ;;
esac

etcd_dir=$("$here/peers.sh" etcd | tail -n 1)
kube_dir=$("$here/peers.sh" kube | tail -n 1)
PATH=$kube_dir:$etcd_dir:$PATH

source "$here/kubernetes/plane.sh"
source "$here/kubernetes/stand_in.sh"
script_start=$EPOCHREALTIME
work=$(mktemp -d "${TMPDIR:-/tmp}/coffer-kubernetes.XXXXXX")
trap finish EXIT
trap '((BASH_SUBSHELL)) || say "${BASH_SOURCE[0]##*/}:$LINENO"' ERR
trap 'exit 1' INT TERM
prepare_plane

# --- Up --------------------------------------------------------------------------------------------------------------------------

store_serves() {
    start_store
    poll 20 "the store" etcdctl endpoint health --command-timeout=1s
    etcdctl endpoint status -w fields >"$work/status"
    contains "the version that the apiserver derives features from" "$work/status" '"Version" : "3\.7\.[0-9]+"'
    contains "the store's log" "$work/store.log" 'ready to serve client requests'
}

apiserver_is_ready() {
    start_apiserver
    poll 90 "/readyz" apiserver_ready
    contains "/readyz" "$work/readyz" '^\[\+\]etcd ok'
    contains "/readyz" "$work/readyz" '^\[\+\]etcd-readiness ok'
    api GET '/livez?verbose' >"$work/livez"
    contains "/livez" "$work/livez" '^\[\+\]etcd ok'
}

controllers_run() {
    start_controllers
    poll 60 "the service account of the namespace" kubectl get serviceaccount default
    poll 20 "the root certificate in the namespace" kubectl get configmap kube-root-ca.crt
    poll 20 "a leader among the controllers" controllers_lead
}

controllers_lead() { kubectl get lease kube-controller-manager -n kube-system -o jsonpath='{.spec.holderIdentity}' | grep .; }

nodes_join() {
    add_node steady
    add_node silent
    launch heart keep_beating steady
    poll 20 "both nodes to be ready and without a taint" nodes_are_fine
}

nodes_are_fine() { [[ $(kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.spec.taints} {end}') == "silent  steady  " ]]; }

# --- Who may what ----------------------------------------------------------------------------------------------------------------

users_may_different_things() {
    kubectl create role reader --verb=get,list,watch --resource=pods
    kubectl create rolebinding alice-reads --role=reader --user=alice
    kubectl create clusterrole node-reader --verb=get,list --resource=nodes
    kubectl create clusterrolebinding bob-reads-nodes --clusterrole=node-reader --user=bob
    poll 10 "alice's rights" may alice list pods
    poll 10 "bob's rights" may bob list nodes
    same "may alice delete pods" no "$(asked alice delete pods)"
    same "may alice list nodes" no "$(asked alice list nodes)"
    same "may bob list pods" no "$(asked bob list pods)"
    kubectl --user=alice get pods >/dev/null 2>&1
    if kubectl --user=bob get pods >"$work/bob" 2>&1; then say "bob has listed pods"; return 1; fi
    contains "the answer to bob" "$work/bob" 'Forbidden.*"bob" cannot list resource "pods"'
} >/dev/null

may() { kubectl auth can-i "$2" "$3" --user="$1"; }
asked() { kubectl auth can-i "$2" "$3" --user="$1" 2>/dev/null || :; }

# --- A deployment and those who watch it -----------------------------------------------------------------------------------------

deployment_created() {
    early_revision=$(revision)
    launch kubectl-watch kubectl get pods -w --output-watch-events
    launch etcdctl-watch etcdctl watch /registry/pods/default/ --prefix --prev-kv --rev=$((early_revision + 1)) -w fields
    kubectl create deployment web --image=registry.example/web:1 --replicas=3 >/dev/null
    poll 30 "three pods" settled default web 3
    poll 10 "kubectl's watch to have begun" kubectl_watch_shows 3
    web_uid=$(kubectl get deployment web -o jsonpath='{.metadata.uid}')
}

scaled_up() {
    kubectl scale deployment web --replicas=6 >/dev/null
    poll 30 "six pods" settled default web 6
}

scaled_down() {
    kubectl scale deployment web --replicas=2 >/dev/null
    poll 30 "two pods" settled default web 2
}

kubectl_watch_saw_it() {
    poll 10 "six pods to appear and four to go in kubectl's watch" kubectl_watch_is_whole
    halt kubectl-watch TERM
}

kubectl_watch_is_whole() {
    [[ $(watched ADDED) == 6 && $(watched DELETED) == 4 ]] && grep -q '^MODIFIED .*Terminating' "$work/kubectl-watch.log"
}

kubectl_watch_shows() { [[ $(watched ADDED) == "$1" ]]; }
watched() { awk -v event="$1" '$1 == event { print $2 }' "$work/kubectl-watch.log" | sort -u | wc -l; }

# Each event but a creation must carry the pair before it: the apiserver ends a watch that lacks one.
etcdctl_watch_saw_it() {
    poll 10 "six creations and four deletions in etcdctl's watch" etcdctl_watch_is_whole
    same "updates and deletions without their previous pair" 0 "$(pod_events '$1 != "create" && $3 == ""' | wc -l)"
    same "events whose previous pair has another key" 0 "$(pod_events '$1 != "create" && $2 != $3' | wc -l)"
    same "creations with a previous pair" 0 "$(pod_events '$1 == "create" && $3 != ""' | wc -l)"
    same "revisions that go back" 0 "$(pod_events '$4 < last { print "back" } { last = $4 } 0' | wc -l)"
    at_least "updates" 12 "$(pod_events '$1 == "update"' | wc -l)"
    halt etcdctl-watch TERM
}

etcdctl_watch_is_whole() { [[ $(pod_events '$1 == "create"' | wc -l) == 6 && $(pod_events '$1 == "delete"' | wc -l) == 4 ]]; }

# pod_events CONDITION: etcdctl's watch as lines "create|update|delete key previous-key revision", those that awk finds the condition true for.
pod_events() {
    awk -F ' : ' '
        function flush() { if (type) print (type == "DELETE" ? "delete" : created == changed ? "create" : "update") "\t" key "\t" previous "\t" changed }
        $1 == "\"Type\"" { flush(); type = $2; gsub(/"/, "", type); key = previous = created = changed = "" }
        $1 == "\"PrevKey\"" { previous = $2 }
        $1 == "\"Key\"" { key = $2 }
        $1 == "\"CreateRevision\"" { created = $2 }
        $1 == "\"ModRevision\"" { changed = $2 }
        END { flush() }' "$work/etcdctl-watch.log" | awk -F '\t' "$1"
}

keys_are_listed() {
    local key at
    at=$(revision)
    etcdctl get --prefix /registry/ --keys-only --rev="$at" >"$work/keys"
    for key in deployments/default/web namespaces/default minions/steady ipaddresses/10.96.0.1 leases/kube-node-lease/steady \
        services/specs/default/kubernetes roles/default/reader rolebindings/default/alice-reads; do
        contains "the keys" "$work/keys" "^/registry/$key\$"
    done
    same "replica sets" 1 "$(grep -c '^/registry/replicasets/default/web-' "$work/keys")"
    same "pods in the store and by the apiserver" "$(kubectl get pods --no-headers | wc -l)" "$(grep -c '^/registry/pods/default/' "$work/keys")"
    same "keys out of order" "" "$(grep . "$work/keys" | sort -c 2>&1)"
    same "keys listed and counted" "$(grep -c . "$work/keys")" "$(etcdctl get --prefix /registry/ --count-only --rev="$at" -w fields | awk '$1 == "\"Count\"" { print $3 }')"
}

service_gets_its_endpoints() {
    kubectl expose deployment web --port=80 --target-port=8080 >/dev/null
    poll 20 "two endpoints" endpoints_are 2
    kubectl get service web -o jsonpath='{.spec.clusterIP}' >"$work/address"
    contains "the service's address" "$work/address" '^10\.96\.'
    kubectl scale deployment web --replicas=4 >/dev/null
    poll 30 "four pods" settled default web 4
    poll 20 "four endpoints" endpoints_are 4
    same "endpoint slices in the store" 1 "$(stored /registry/endpointslices/default/web-)"
}

endpoints_are() {
    [[ $(kubectl get endpointslices -l kubernetes.io/service-name=web \
        -o jsonpath='{range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{"\n"}{end}' | sort -u | grep -c .) == "$1" ]]
}

rollout_and_back() {
    kubectl set image deployment/web web=registry.example/web:2 >/dev/null
    poll 40 "the new image" settled default web 4
    same "image" registry.example/web:2 "$(kubectl get pods -l app=web -o jsonpath='{.items[0].spec.containers[0].image}')"
    kubectl rollout undo deployment/web >/dev/null
    poll 40 "the old image" settled default web 4
    same "image" registry.example/web:1 "$(kubectl get pods -l app=web -o jsonpath='{.items[0].spec.containers[0].image}')"
}

# --- Refusals --------------------------------------------------------------------------------------------------------------------

stale_write_is_refused() {
    local maps=/api/v1/namespaces/default/configmaps version
    kubectl create configmap turns --from-literal=turn=0 >/dev/null
    version=$(kubectl get configmap turns -o jsonpath='{.metadata.resourceVersion}')
    local put='{"metadata":{"name":"turns","resourceVersion":"'$version'"},"data":{"turn":"1"}}'
    same "the first write" 200 "$(api_status PUT $maps/turns "$put")"
    same "the second write from the same version" 409 "$(api_status PUT $maps/turns "$put")"
    contains "the refusal" "$work/answer" '"reason":"Conflict"'
    same "a second creation" 409 "$(api_status POST $maps '{"metadata":{"name":"turns"}}')"
    contains "the refusal" "$work/answer" '"reason":"AlreadyExists"'
}

quota_refuses() {
    kubectl create namespace team >/dev/null
    kubectl create quota few -n team --hard=count/secrets=2,pods=1 >/dev/null
    poll 20 "the quota to be counted" quota_used 0
    kubectl create secret generic one -n team --from-literal=a=b >/dev/null
    kubectl create secret generic two -n team --from-literal=a=b >/dev/null
    if kubectl create secret generic three -n team --from-literal=a=b >"$work/quota" 2>&1; then say "the third secret was let in"; return 1; fi
    contains "the refusal" "$work/quota" 'exceeded quota: few, requested: count/secrets=1, used: count/secrets=2, limited: count/secrets=2'
    quota_used 2
    kubectl delete secret one -n team >/dev/null
    poll 20 "the quota to be freed" quota_used 1
    kubectl create secret generic three -n team --from-literal=a=b >/dev/null
}

quota_used() { [[ $(kubectl get quota few -n team -o jsonpath='{.status.used.count/secrets}') == "$1" ]]; }

custom_resource_comes_and_goes() {
    kubectl apply -f - >/dev/null <<'END'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: vaults.bank.example}
spec:
  group: bank.example
  scope: Namespaced
  names: {plural: vaults, singular: vault, kind: Vault}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {filling: {type: string}}}}}}
END
    kubectl wait --for=condition=Established crd/vaults.bank.example --timeout=20s >/dev/null
    poll 20 "the new resource" api GET $vaults
    api POST $vaults '{"apiVersion":"bank.example/v1","kind":"Vault","metadata":{"name":"small"},"spec":{"filling":"gold"}}' >/dev/null
    same "its filling" gold "$(kubectl get vault small -o jsonpath='{.spec.filling}')"
    same "vaults in the store" 1 "$(stored /registry/bank.example/vaults/default/)"
}
vaults=/apis/bank.example/v1/namespaces/default/vaults

# The apiserver takes requests up to 3 MB; the store's bound of 1.5 MiB lies below that.
large_objects() {
    vault_of 1000000 fits
    vault_of 1700000 bursts
    same "one megabyte" 201 "$(api_status POST $vaults "@$work/fits")"
    same "its length when read again" 1000000 "$(kubectl get vault fits -o jsonpath='{.spec.filling}' | wc -c)"
    local status
    status=$(api_status POST $vaults "@$work/bursts")
    at_least "the status for 1.7 megabytes" 400 "$status"
    contains "the refusal" "$work/answer" 'request is too large|exceeds the maximum'
    same "vaults in the store" 2 "$(stored /registry/bank.example/vaults/default/)"
}

vault_of() {
    { printf '{"apiVersion":"bank.example/v1","kind":"Vault","metadata":{"name":"%s"},"spec":{"filling":"' "$2"
      head -c "$1" /dev/zero | tr '\0' x
      printf '"}}'; } >"$work/$2"
}

# --- Many ------------------------------------------------------------------------------------------------------------------------

# create_maps NAMESPACE COUNT: creates config maps map-1 ... through one curl on a few connections; prints "status name" for each.
create_maps() {
    local i
    for ((i = 1; i <= $2; i++)); do
        printf 'next\nurl = "%s/api/v1/namespaces/%s/configmaps"\ncacert = "%s"\nmax-time = 40\noutput = /dev/null\n' "$api_url" "$1" "$work/api.crt"
        printf 'header = "Authorization: Bearer admin-token"\nheader = "Content-Type: application/json"\n'
        printf 'data = "{\\"metadata\\":{\\"name\\":\\"map-%d\\"},\\"data\\":{\\"n\\":\\"%d\\"}}"\n' "$i" "$i"
        printf 'write-out = "%%{http_code} map-%d\\n"\n' "$i"
    done | sed 1d >"$work/$1.curl"
    curl --no-progress-meter --parallel --parallel-max 32 --config "$work/$1.curl"
}

two_thousand_created() {
    kubectl create namespace bulk >/dev/null
    poll 20 "the root certificate in the namespace" kubectl get configmap kube-root-ca.crt -n bulk
    create_maps bulk 2000 >"$work/created"
    same "created" 2000 "$(grep -c '^201 ' "$work/created")"
    same "keys in the store" 2001 "$(stored /registry/configmaps/bulk/)"
}

# All pages show the state at the first one, although something is created and something deleted between them.
two_thousand_listed_in_pages() {
    local maps=/api/v1/namespaces/bulk/configmaps page=0 continue="" version="" listed=0 rest
    local streams_before
    streams_before=$(metric 'etcd_requests_total\\{group="",operation="listStream",resource="configmaps"')
    : >"$work/listed"
    while :; do
        page=$((page + 1))
        api GET "$maps?limit=300&continue=$continue" >"$work/page"
        continue=$(sed -n 's/.*"continue":"\([^"]*\)".*/\1/p;T;q' "$work/page")
        rest=$(sed -n 's/.*"remainingItemCount":\([0-9]*\).*/\1/p;T;q' "$work/page")
        same "version of page $page" "${version:=$(list_version)}" "$(list_version)"
        grep -o '"name":"[^"]*","namespace":"bulk"' "$work/page" >>"$work/listed" || true
        listed=$(wc -l <"$work/listed")
        [[ -n $continue ]] || break
        same "left after page $page" $((2001 - listed)) "$rest"
        same "names after page $page" $((300 * page)) "$listed"
        if ((page == 2)); then
            api POST "$maps" '{"metadata":{"name":"zz-late"}}' >/dev/null
            api DELETE "$maps/map-999" >/dev/null
        fi
    done
    same "pages" 7 "$page"
    same "names in all" 2001 "$(sort -u "$work/listed" | wc -l)"
    same "names of what came later" 0 "$(grep -c zz-late "$work/listed")"
    same "what was deleted meanwhile" 1 "$(grep -c '"map-999"' "$work/listed")"
    same "names by kubectl, in pages of its own" 2001 "$(kubectl get configmaps -n bulk --chunk-size=250 --no-headers | wc -l)"
    at_least "lists that the store streamed" 7 $(($(metric 'etcd_requests_total\\{group="",operation="listStream",resource="configmaps"') - streams_before))
}

list_version() { sed -n 's/.*"metadata":{"resourceVersion":"\([0-9]*\)".*/\1/p;T;q' "$work/page"; }

two_thousand_deleted() {
    api DELETE /api/v1/namespaces/bulk/configmaps >"$work/answer"
    poll 20 "the keys to be gone but for the root certificate, which comes again" only_the_certificate_is_left
    same "names by kubectl" kube-root-ca.crt "$(kubectl get configmaps -n bulk -o jsonpath='{.items[*].metadata.name}')"
}

only_the_certificate_is_left() { [[ $(etcdctl get --prefix /registry/configmaps/bulk/ --keys-only | grep .) == /registry/configmaps/bulk/kube-root-ca.crt ]]; }

# --- What time brings ------------------------------------------------------------------------------------------------------------

silent_node_is_tainted() {
    poll 30 "the silent node to be tainted" silent_is_tainted
    same "taints of the node that beats" "" "$(kubectl get node steady -o jsonpath='{.spec.taints}')"
    same "what is known of the silent node" Unknown "$(kubectl get node silent -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')"
}

silent_is_tainted() {
    [[ $(kubectl get node silent -o jsonpath='{range .spec.taints[*]}{.key}:{.effect}{"\n"}{end}' | sort | tr '\n' ' ') == \
        "node.kubernetes.io/unreachable:NoExecute node.kubernetes.io/unreachable:NoSchedule " ]]
}

# Events hang on a lease that many share. The apiserver's record among its peers gets a new lease of 15 seconds with every renewal, so by now
# it has outlived its first ones: it must hang on the newest only.
leases_hold_keys() {
    local lease
    at_least "events in the store" 1 "$(stored /registry/events/default/)"
    for lease in $(etcdctl lease list | grep -E '^[0-9a-f]+$'); do etcdctl lease timetolive --keys "$lease"; done >"$work/leases"
    contains "the leases" "$work/leases" 'granted with TTL\([0-9]{3,}s\), remaining\([0-9]{3,}s\), attached keys\(\[.*/registry/events/default/'
    same "leases that hold the apiserver's record" 1 "$(grep -c 'granted with TTL(15s).*/registry/masterleases/192\.0\.2\.1' "$work/leases")"
}

old_revision_is_refused() {
    poll 60 "the apiserver to compact beyond revision $early_revision" early_is_compacted
    at_least "the apiserver's note of it" "$early_revision" "$(etcdctl get compact_rev_key --print-value-only)"
    if timeout 10 etcdctl watch /registry/pods/ --prefix --rev="$early_revision" >"$work/late-watch" 2>&1; then :; fi
    contains "a watch from there" "$work/late-watch" 'required revision has been compacted'
    same "a list at that version" 410 "$(api_status GET "/api/v1/namespaces/default/configmaps?resourceVersion=$early_revision&resourceVersionMatch=Exact")"
    contains "the refusal" "$work/answer" '"reason":"Expired"'
    same "a watch through the apiserver" 200 "$(api_status GET "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=5&resourceVersion=$early_revision")"
    contains "its first event" "$work/answer" '"type":"ERROR".*"code":410'
    same "a list at a version to come" 504 "$(api_status GET "/api/v1/namespaces/default/configmaps?resourceVersion=999999999&resourceVersionMatch=Exact")"
    contains "the refusal" "$work/answer" 'Too large resource version'
    at_least "the newest state is still there" 1 "$(stored /registry/namespaces/default)"
}

early_is_compacted() {
    ! etcdctl get /registry/namespaces/default --rev="$early_revision" >"$work/early" 2>&1 &&
        grep -q 'required revision has been compacted' "$work/early"
}

# --- The store dies --------------------------------------------------------------------------------------------------------------

store_killed_amid_writes() {
    local before
    kubectl create namespace crash >/dev/null
    before=$(revision)
    launch crash-watch etcdctl watch /registry/configmaps/crash/map- --prefix --rev=$((before + 1)) -w fields
    create_maps crash 1500 >"$work/acknowledged" 2>/dev/null &
    local writer=$!
    poll 20 "the first writes" acknowledged_are 200
    log_lines_before_kill=$(wc -l <"$work/apiserver.log")
    halt store KILL
    at_least "writes still to come when the store was killed" 1 $((1500 - $(grep -c '^201 ' "$work/acknowledged")))
    poll 20 "/readyz to notice" readyz_names_etcd
    start_store
    poll 20 "the store after kill -9" etcdctl endpoint health --command-timeout=1s
    poll 40 "/readyz after kill -9" apiserver_ready
    wait "$writer" || true
    at_least "revision after the kill" "$before" "$(revision)"
    sed -n 's/^201 //p' "$work/acknowledged" | sort >"$work/acknowledged.names"
    same "writes answered" 1500 "$(wc -l <"$work/acknowledged")"
    crash_names >"$work/crash.names"
    early_is_compacted
    same "acknowledged writes that are lost" "" "$(comm -23 "$work/acknowledged.names" "$work/crash.names" | head -n 5 | tr '\n' ' ')"
}

acknowledged_are() { (($(grep -c '^201 ' "$work/acknowledged") >= $1)); }
readyz_names_etcd() { ! apiserver_ready && grep -q '^\[-\]etcd' "$work/readyz"; }
crash_names() { etcdctl get --prefix /registry/configmaps/crash/map- --keys-only | sed -n 's,.*/,,p' | sort; }

plane_recovers() {
    poll 90 "the controllers to scale again" scaled_after_kill
    create_maps_again
    poll 20 "the watch to have gone on" crash_watch_is_whole
    halt crash-watch TERM
    log_lines_after_kill=$(wc -l <"$work/apiserver.log")
}

scaled_after_kill() { kubectl scale deployment web --replicas=5 && settled default web 5; }

create_maps_again() {
    api DELETE /api/v1/namespaces/crash/configmaps/map-1 >/dev/null
    api POST /api/v1/namespaces/crash/configmaps '{"metadata":{"name":"map-1"}}' >/dev/null
}

# The watch that was open when the store died goes on where it was: every key once, map-1 a second time, nothing left out.
crash_watch_is_whole() {
    [[ $(awk -F ' : ' '$1 == "\"Type\"" { type = $2 } $1 == "\"Key\"" && type ~ /PUT/ { gsub(/.*\/|"/, "", $2); print $2 }' "$work/crash-watch.log" | sort) == \
        "$({ crash_names; echo map-1; } | sort)" ]]
}

# Killed, not asked to stop: its connections and watches break at once. Informers that meet refusals wait up to 30 seconds before they try
# again, and the endpoint slices' controller doubles its own waits behind them; hence the long deadlines.
apiserver_restarted() {
    halt apiserver KILL
    start_apiserver
    poll 60 "/readyz" apiserver_ready
    same "the deployment is the same" "$web_uid" "$(kubectl get deployment web -o jsonpath='{.metadata.uid}')"
    kubectl scale deployment web --replicas=3 >/dev/null
    poll 90 "the controllers to scale again" settled default web 3
    poll 90 "three endpoints" endpoints_are 3
}

# --- Deletion that draws circles --------------------------------------------------------------------------------------------------

namespace_deleted_with_content() {
    kubectl create configmap left -n team --from-literal=a=b >/dev/null
    kubectl create deployment inner -n team --image=registry.example/inner:1 >/dev/null
    poll 20 "the pod in the namespace" pod_in_team
    at_least "keys of the namespace" 8 "$(keys_of team | wc -l)"
    kubectl delete namespace team crash --wait=false >/dev/null
    poll 60 "the namespaces to be gone" namespaces_are_gone
    same "keys that are left of it" "" "$(keys_of team | head -n 5)"
    same "keys that are left of it" "" "$(keys_of crash | head -n 5)"
}

# Events are left out: one about the end of the namespace may be written after everything else in it is gone.
keys_of() { etcdctl get --prefix /registry/ --keys-only | grep -v '^/registry/events/' | grep -E "/$1(/|\$)" || true; }
pod_in_team() { (($(stored /registry/pods/team/) == 1)); }
namespaces_are_gone() { ! kubectl get namespace team && ! kubectl get namespace crash; }

garbage_is_collected() {
    kubectl delete deployment web --wait=false >/dev/null
    poll 40 "replica sets and pods to follow their deployment" web_is_gone
    kubectl create configmap owner >/dev/null
    kubectl create -f - >/dev/null <<END
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences:
  - {apiVersion: v1, kind: ConfigMap, name: owner, uid: $(kubectl get configmap owner -o jsonpath='{.metadata.uid}'), blockOwnerDeletion: true}
END
    same "what the owner owns" 1 "$(stored /registry/configmaps/default/owned)"
    kubectl delete configmap owner --cascade=foreground --timeout=30s >/dev/null
    same "what the owner owned" 0 "$(stored /registry/configmaps/default/owned)"
    same "what nobody owned" turns "$(kubectl get configmap turns -o jsonpath='{.metadata.name}')"
}

web_is_gone() {
    tend default
    [[ -z $(etcdctl get --prefix /registry/replicasets/default/ --keys-only) && -z $(etcdctl get --prefix /registry/pods/default/ --keys-only) ]]
}

# --- How the apiserver found the store ---------------------------------------------------------------------------------------------

apiserver_is_content() {
    at_least "reads from the cache that waited for the store's progress" 1 "$(metric 'apiserver_watch_cache_consistent_read_total\\{.*success="true"')"
    same "such reads that failed" 0 "$(metric 'apiserver_watch_cache_consistent_read_total\\{.*success="false"')"
    at_least "progress notifications" 1 "$(metric 'etcd_bookmark_total')"
    at_least "lists that the store streamed" 50 "$(metric 'etcd_requests_total\\{.*operation="listStream"')"
    same "lists in pages, because streaming was not there" 0 "$(metric 'etcd_requests_total\\{.*operation="list",')"
    at_least "bytes of the store" 100000 "$(metric 'apiserver_storage_size_bytes')"
    at_least "namespaces counted" 4 "$(metric 'apiserver_resource_objects\\{group="",resource="namespaces"')"
    same "objects that could not be decoded" 0 "$(metric 'apiserver_storage_decode_errors_total')"
    apiserver_ready >/dev/null
    same "alarms" "" "$(etcdctl alarm list)"
}

# While the store was dead the apiserver had every reason to complain; at all other times a word about the store is one too many.
logs_are_quiet() {
    { head -n "$log_lines_before_kill" "$work/apiserver.log"; tail -n "+$((log_lines_after_kill + 1))" "$work/apiserver.log"; } >"$work/apiserver.quiet"
    same "complaints about the store" "" "$(grep -E "$complaints" "$work/apiserver.quiet" | grep -Ev "$expected" | head -n 5)"
    same "what must not happen even then" "" "$(grep -E "$never" "$work/apiserver.log" | head -n 5)"
    same "panics of the store" "" "$(grep -iE '\bpanic' "$work/store.log" | head -n 5)"
}
complaints='^[EF][0-9]{4} .*(etcd|storage|compact|watch chan|rpc error|grpc)|"level":"(warn|error)".*etcd|unknown'
# The one is provoked above; the other is what an apiserver says when it starts after having been killed, alone.
expected='etcdserver: request is too large|no API server IP addresses were listed in storage'
never='PrevKv=nil|completed without a revision|etcd returned revision|more values remaining|Unimplemented|does not support'
never+='|not supported by .* endpoint|parse etcd version|code = Unknown|code = DataLoss|^panic|^F[0-9]{4} '

step "the store serves" store_serves
step "the apiserver is ready, its checks of the store too" apiserver_is_ready
step "the controllers run" controllers_run
step "two nodes join" nodes_join
step "two users may different things" users_may_different_things
step "a deployment is created" deployment_created
step "it is scaled up" scaled_up
step "it is scaled down" scaled_down
step "kubectl get -w saw it" kubectl_watch_saw_it
step "etcdctl watch saw it, with previous values" etcdctl_watch_saw_it
step "etcdctl get --prefix --keys-only" keys_are_listed
step "a service gets its endpoint slice" service_gets_its_endpoints
step "a rollout and the way back" rollout_and_back
step "a stale write is refused" stale_write_is_refused
step "a quota refuses" quota_refuses
step "a custom resource" custom_resource_comes_and_goes
step "a large object fits, a larger one is refused" large_objects
step "the silent node is tainted" silent_node_is_tainted
step "2,000 objects are created" two_thousand_created
step "2,000 objects are listed in pages" two_thousand_listed_in_pages
step "2,000 objects are deleted" two_thousand_deleted
step "leases hold events and the apiserver's record" leases_hold_keys
step "an old revision is refused after compaction" old_revision_is_refused
step "kill -9 of the store amid writes, restart" store_killed_amid_writes
step "controllers and watches go on" plane_recovers
step "the apiserver is restarted" apiserver_restarted
step "a namespace is deleted with its content" namespace_deleted_with_content
step "the garbage collector" garbage_is_collected
step "the apiserver's view of the store" apiserver_is_content
step "the logs are quiet" logs_are_quiet
printf 'steps %d passed %d   over %s in %s s\n' "$steps_begun" "$steps_passed" "$1" "$(seconds_since "$script_start")"
