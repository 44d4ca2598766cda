#!/usr/bin/env bash
# Plants one fault at a time into a copy of the tree and demands that the named test catches it.
#
#   scripts/planted.sh              every fault of scripts/planted.txt
#   scripts/planted.sh --sample     those marked for CI
#   scripts/planted.sh NAME ...     these
#
# A row of scripts/planted.txt: name | ci or long | file | sed expression | package | test filter.
# The expression must change exactly one line; the tests must build and then fail. A fault that does not build, or that
# no test minds, fails this script: it would be a hole in the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target} CARGO_INCREMENTAL=0

sample=0 names=()
for arg in "$@"; do
    if [[ $arg == --sample ]]; then sample=1; else names+=("$arg"); fi
done

# The copy stands at one fixed place, so that crates built there once are not built again for every fault.
tree=$CARGO_TARGET_DIR/planted/tree
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [[ -e $file ]] && printf '%s\0' "$file"
done | tar -c --null -T - | tar -x -C "$tree"

trim() { local s=$1; s=${s#"${s%%[![:space:]]*}"}; printf '%s' "${s%"${s##*[![:space:]]}"}"; }

tried=0 caught=0 missed=()
while IFS='|' read -r name when file expression package filter; do
    name=$(trim "$name") when=$(trim "$when") file=$(trim "$file") expression=$(trim "$expression")
    package=$(trim "$package") filter=$(trim "$filter")
    [[ -n $name && $name != \#* ]] || continue
    if ((${#names[@]})); then
        [[ " ${names[*]} " == *" $name "* ]] || continue
    elif ((sample)) && [[ $when != ci ]]; then
        continue
    fi
    tried=$((tried + 1))
    begun=$SECONDS
    cp "$tree/$file" "$tree/$file.whole"
    sed -i "$expression" "$tree/$file"
    changed=$(diff "$tree/$file.whole" "$tree/$file" | grep -c '^[<>]' || true)
    log=$CARGO_TARGET_DIR/planted/$name.log
    verdict=
    if ((changed < 1 || changed > 2)); then
        verdict="the expression changes $changed lines, not one: mend the row"
    elif (cd "$tree" && cargo test --profile ci -p "$package" "$filter") >"$log" 2>&1; then
        verdict="NOT CAUGHT by $package $filter"
    elif ! grep -qE '^test result: FAILED|^error: test failed|panicked at|has overflowed|SIG[A-Z]+' "$log"; then
        verdict="does not build"
    fi
    mv "$tree/$file.whole" "$tree/$file"
    touch "$tree/$file"
    if [[ -z $verdict ]]; then
        caught=$((caught + 1))
        echo "planted $name: caught by $package $filter ($((SECONDS - begun)) s)"
    else
        missed+=("$name")
        tail -15 "$log" 2>/dev/null || true
        echo "planted $name: $verdict"
    fi
done <scripts/planted.txt

echo "planted $tried, caught $caught"
if ((tried == 0 || ${#missed[@]})); then
    echo "planted: FAILED ${missed[*]-}"
    exit 1
fi
