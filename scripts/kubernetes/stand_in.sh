# Stands in for the scheduler and the kubelets, which are not there: binds pods to the node "steady", reports them running, ends those that are
# to be deleted, and beats the heart of that node. Sourced by ../kubernetes.sh.

addresses_given=0

now() { date -u +%Y-%m-%dT%H:%M:%S.%6NZ; }

# add_node NAME: as a kubelet registers itself; the first report takes the not-ready taint away.
add_node() {
    api POST /api/v1/nodes "{\"metadata\":{\"name\":\"$1\"}}"
    api PATCH "/api/v1/nodes/$1/status" '{"status":{"capacity":{"cpu":"8","memory":"16Gi","pods":"110"}}}' application/strategic-merge-patch+json
    api POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases \
        "{\"metadata\":{\"name\":\"$1\"},\"spec\":{\"holderIdentity\":\"$1\",\"leaseDurationSeconds\":6,\"renewTime\":\"$(now)\"}}"
    beat "$1"
} >/dev/null

# beat NAME: renews the node's lease and reports it ready; the second changes nothing unless somebody else had declared it lost.
beat() {
    api PATCH "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/$1" "{\"spec\":{\"renewTime\":\"$(now)\"}}" application/merge-patch+json
    api PATCH "/api/v1/nodes/$1/status" '{"status":{"conditions":[{"type":"Ready","status":"True","reason":"StandIn","message":"reported by the stand-in"}]}}' \
        application/strategic-merge-patch+json
} >/dev/null

# Beats until it is killed, and for no longer than the script lives. A store or an apiserver that is away just now is none of its business.
keep_beating() {
    set +e
    trap - EXIT ERR
    while kill -0 $$ 2>/dev/null; do
        beat "$1"
        sleep 1
    done
}

# A line per pod: name, node, time of deletion, whether it is ready.
pod_lines='{{range .items}}{{.metadata.name}} {{or .spec.nodeName "-"}} {{or .metadata.deletionTimestamp "-"}} {{range .status.conditions}}'
pod_lines+='{{if eq .type "Ready"}}{{.status}}{{end}}{{end}}{{"\n"}}{{end}}'

# tend NAMESPACE: one round over the pods, each brought one step further.
tend() {
    local pod node deletion ready
    while read -r pod node deletion ready; do
        if [[ $deletion != - ]]; then
            api DELETE "/api/v1/namespaces/$1/pods/$pod" '{"gracePeriodSeconds":0}'
            continue
        fi
        [[ $node != - ]] || api POST "/api/v1/namespaces/$1/pods/$pod/binding" \
            "{\"metadata\":{\"name\":\"$pod\"},\"target\":{\"kind\":\"Node\",\"name\":\"steady\"}}"
        [[ $ready == True ]] || report_running "$1" "$pod"
    done < <(kubectl get pods -n "$1" -o go-template="$pod_lines")
} >/dev/null

report_running() {
    local since address=10.244.$((addresses_given / 200)).$((addresses_given % 200 + 1)) conditions="" condition
    since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    addresses_given=$((addresses_given + 1))
    for condition in Initialized PodScheduled ContainersReady Ready; do
        conditions+="{\"type\":\"$condition\",\"status\":\"True\",\"lastTransitionTime\":\"$since\"},"
    done
    api PATCH "/api/v1/namespaces/$1/pods/$2/status" \
        "{\"status\":{\"phase\":\"Running\",\"startTime\":\"$since\",\"podIP\":\"$address\",\"podIPs\":[{\"ip\":\"$address\"}],\"conditions\":[${conditions%,}]}}" \
        application/strategic-merge-patch+json
}

# settled NAMESPACE DEPLOYMENT REPLICAS: tends once, then looks: so many pods are ready, of the newest template, and no other is left.
settled() {
    local found
    tend "$1"
    found=$(kubectl get deployment "$2" -n "$1" -o jsonpath='{.status.replicas} {.status.updatedReplicas} {.status.readyReplicas} {.status.availableReplicas}') &&
        echo "replicas, updated, ready, available: $found" && [[ $found == "$3 $3 $3 $3" ]] &&
        [[ $(kubectl get pods -n "$1" -l app="$2" --no-headers | wc -l) == "$3" ]]
}
