#!/usr/bin/env bash
# Makes a directory of links to cargo, rustc, the C compiler with its binutils, and coreutils, and prints its name.
#
# With PATH set to that directory alone a build shows what it really needs: no protoc, cmake, pkg-config or perl
# can slip in. Usage: PATH="$(scripts/stripped_path.sh DIR)" cargo test ...
set -euo pipefail

dir=${1:?usage: stripped_path.sh DIR}
mkdir -p "$dir"

link() {
    local found
    if found=$(command -v "$1") && [[ $found == /* ]]; then
        ln -sfn "$found" "$dir/$1"
    elif [[ ${2:-needed} == needed ]]; then
        echo "stripped_path.sh: $1 is not on this machine" >&2
        exit 1
    fi
}

for tool in cargo rustc rustdoc cc ld ar as; do link "$tool"; done
for tool in gcc ranlib nm strip objcopy objdump ld.bfd ld.gold collect2; do link "$tool" optional; done

# coreutils: what the package lists, or the names that matter where there is no package manager to ask
if command -v dpkg >/dev/null && dpkg -L coreutils >/dev/null 2>&1; then
    while read -r path; do
        [[ -x $path && ! -d $path ]] && ln -sfn "$path" "$dir/$(basename "$path")"
    done < <(dpkg -L coreutils | grep -E '^(/usr)?/(s?bin)/')
else
    for tool in cat chmod cp cut date dirname echo env expr head ln ls mkdir mktemp mv nproc od rm rmdir sleep sort tail tee test touch tr true uname wc; do
        link "$tool" optional
    done
fi
echo "$dir"
