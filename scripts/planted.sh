#!/usr/bin/env bash
# Plants one fault at a time into a copy of the tree and demands that the named test catches it.
#
#   scripts/planted.sh              every fault of scripts/planted.txt
#   scripts/planted.sh --sample     those marked for CI
#   scripts/planted.sh NAME ...     these
#
# The form of scripts/planted.txt stands at its head. An expression must change exactly one line; the tests must build
# and then fail. A fault that does not build, or that no test minds, fails this script: it would be a hole in the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} CARGO_INCREMENTAL=0

sample=0 names=()
for arg in "$@"; do
    if [[ $arg == --sample ]]; then sample=1; else names+=("$arg"); fi
done

# Cargo puts a copy's binaries where this tree's stand. Nobody must take one with a fault in it for whole: they are removed,
# and the next build puts this tree's there again.
trap 'rm -f "$CARGO_TARGET_DIR"/ci/coffer "$CARGO_TARGET_DIR"/ci/coffer-bench' EXIT

# The copy stands at one fixed place, so that crates built there once are not built again for every fault.
tree=$CARGO_TARGET_DIR/planted/tree
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [[ -e $file ]] && printf '%s\0' "$file"
done | tar -c --null -T - | tar -x -C "$tree"

wanted() { # NAME ci|long
    if ((${#names[@]})); then
        [[ " ${names[*]} " == *" $1 "* ]]
    else
        ((!sample)) || [[ $2 == ci ]]
    fi
}

tried=0 caught=0 missed=()
plant() { # NAME FILE EXPRESSION PACKAGE FILTER
    local name=$1 file=$2 expression=$3 package=$4 filter=$5 begun=$SECONDS verdict='' changed
    local log=$CARGO_TARGET_DIR/planted/$name.log
    tried=$((tried + 1))
    cp "$tree/$file" "$tree/$file.whole"
    sed -i "$expression" "$tree/$file"
    changed=$(diff "$tree/$file.whole" "$tree/$file" | grep -c '^>' || true)
    if ((changed != 1)); then
        verdict="the expression changes $changed lines, not one: mend it"
    elif (cd "$tree" && ulimit -v 12000000 && timeout 900 cargo test --profile ci -p "$package" "$filter") >"$log" 2>&1; then
        verdict="NOT CAUGHT by $package $filter"
    elif ! grep -qE '^test result: FAILED|^error: test failed' "$log"; then
        verdict="does not build, or hangs"
    fi
    mv "$tree/$file.whole" "$tree/$file"
    touch "$tree/$file"
    if [[ -z $verdict ]]; then
        caught=$((caught + 1))
        local test
        test=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | head -1)
        echo "planted $name: caught by $package ${test:-$filter} ($((SECONDS - begun)) s)"
    else
        missed+=("$name")
        tail -15 "$log" 2>/dev/null || true
        echo "planted $name: $verdict"
    fi
}

while read -r word rest; do
    case $word in
        fault) read -r name when <<<"$rest" ;;
        file) file=$rest ;;
        sed) expression=$rest ;;
        test)
            read -r package filter <<<"$rest"
            if wanted "$name" "$when"; then plant "$name" "$file" "$expression" "$package" "$filter" </dev/null; fi
            ;;
    esac
done <scripts/planted.txt

echo "planted $tried, caught $caught"
if ((tried == 0 || ${#missed[@]})); then
    echo "planted: FAILED ${missed[*]-}"
    exit 1
fi
