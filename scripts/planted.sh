#!/usr/bin/env bash
# Plants one fault at a time into a copy of the tree and demands that the named test catches it.
#
#   scripts/planted.sh              every fault of scripts/planted.txt
#   scripts/planted.sh --sample     those marked for CI
#   scripts/planted.sh NAME ...     these
#   scripts/planted.sh --match      plants none: says whether every expression still fits the source (a second)
#
# The form of scripts/planted.txt stands at its head. An expression must change exactly one line; the tests must build
# and then fail. A fault that does not build, or that no test minds, fails this script: it would be a hole in the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} CARGO_INCREMENTAL=0

sample=0 match=0 names=()
for arg in "$@"; do
    case $arg in
        --sample) sample=1 ;;
        --match) match=1 ;;
        *) names+=("$arg") ;;
    esac
done

# Calls `$1 NAME WHEN FILE EXPRESSION PACKAGE FILTER` for every fault.
each_fault() {
    local word rest name when file expression package filter
    while read -r word rest; do
        case $word in
            fault) read -r name when <<<"$rest" ;;
            file) file=$rest ;;
            sed) expression=$rest ;;
            test)
                read -r package filter <<<"$rest"
                "$1" "$name" "$when" "$file" "$expression" "$package" "$filter" </dev/null
                ;;
        esac
    done <scripts/planted.txt
}

# How many lines of a file an expression changes.
changes() { # FILE EXPRESSION
    sed "$2" "$1" | diff "$1" - | grep -c '^>' || true
}

# All of them first: one that no longer fits is found here, not after the quarter of an hour that the others take.
misfits=()
fits() { # NAME WHEN FILE EXPRESSION ...
    local changed
    changed=$(changes "$3" "$4")
    ((changed == 1)) || misfits+=("planted $1: the expression changes $changed lines of $3, not one: mend it")
}
each_fault fits
if ((${#misfits[@]})); then
    printf '%s\n' "${misfits[@]}"
    exit 1
fi
((!match)) || exit 0

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
plant() { # NAME WHEN FILE EXPRESSION PACKAGE FILTER
    local name=$1 file=$3 expression=$4 package=$5 filter=$6 begun=$SECONDS verdict=''
    wanted "$name" "$2" || return 0
    local log=$CARGO_TARGET_DIR/planted/$name.log
    tried=$((tried + 1))
    cp "$tree/$file" "$tree/$file.whole"
    sed -i "$expression" "$tree/$file"
    if (cd "$tree" && ulimit -v 12000000 && timeout 900 cargo test --profile ci -p "$package" "$filter") >"$log" 2>&1; then
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

each_fault plant

echo "planted $tried, caught $caught"
if ((tried == 0 || ${#missed[@]})); then
    echo "planted: FAILED ${missed[*]-}"
    exit 1
fi
