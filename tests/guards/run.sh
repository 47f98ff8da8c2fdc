#!/bin/bash
# SPDX-License-Identifier: MIT
#
# run.sh [NAME...]: does a test notice when what it guards is gone? Each patch in
# this directory takes one guard out of rmem and names the test that is to fail without
# it, and the row of the fault matrix (docs/testing.md). In a copy of the tree: the
# test passes as things are, then the patch goes in, and the test has to fail.
#
#   RMEM_KERNELS="6.12"  the kernel (default: the newest)
#
# Logs are in build/guards/NAME. The last line is "N guards are tested, N are not".
set -uo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top" || exit 1
logs=$top/build/guards tree=$top/build/guards/tree
names=("$@")
((${#names[@]})) || mapfile -t names < <(cd tests/guards && printf '%s\n' *.patch | sed 's/\.patch$//')

scripts/deps.sh && tests/vm/kernels.sh fetch || exit 1
kernel=$(tests/vm/kernels.sh list | tail -n 1)
RMEM_KERNELS=$(cut -d. -f1,2 <<<"$kernel")
export RMEM_KERNELS

field() { sed -n "s/^$2: //p;/^diff/q" "tests/guards/$1.patch"; }

build() { # LOG
	make -s -C "$tree" programs kmod-fetched selftest load >"$1" 2>&1
}

# Whether the test passes, and the kernel log is clean.
passes() { # TEST DIRECTORY
	local file=tests/$1.sh opts
	[[ $1 == e2e/* ]] || file=build/$1
	rm -rf "$2"
	mkdir -p "$2"
	mapfile -t opts < <(cd "$tree" && tests/vm/test-options.sh "$file")
	(cd "$tree" && tests/vm/run.sh --kernel "$kernel" --run-dir "$2" --no-dmesg-check --timeout 900 \
		"${opts[@]}" -- tests/vm/guest-suite.sh "$file") >"$2.log" 2>&1 </dev/null &&
		grep -q '^pass' "$2/out/results.tsv" && ! grep -q '^fail' "$2/out/results.tsv" &&
		tests/vm/dmesg-check.sh "$2/dmesg.txt" >>"$2.log"
}

# The first words of the failure.
why() { # DIRECTORY
	grep -h -m 1 -o 'FAIL: .*\|not ok .*' "$1/out"/*.log 2>/dev/null | head -n 1 | grep . ||
		tail -n 1 "$1.log" | grep . || echo 'the VM died'
}

mkdir -p "$tree/build"
# a kernel that was built anew is another one by the same name
rm -rf "$tree/build/kernels"
git ls-files -z | xargs -0 cp --parents -p --update -t "$tree" &&
	cp -al --update build/kernels "$tree/build/" || exit 1
build "$logs/build.log" || { tail "$logs/build.log"; exit 1; }

declare -A sound=() # TEST -> whether it passes as things are
good=0 bad=0
for name in "${names[@]}"; do
	[[ -f tests/guards/$name.patch ]] || { echo "no guard of that name: $name" >&2; exit 2; }
	test=$(field "$name" Test) dir=$logs/$name
	if [[ ! ${sound[$test]:-} ]]; then
		sound[$test]=no
		! passes "$test" "$logs/${test//\//-}" || sound[$test]=yes
	fi
	verdict=''
	if [[ ${sound[$test]} == no ]]; then
		verdict="$test fails anyway"
	elif ! patch -d "$tree" -p1 -s --no-backup-if-mismatch <"tests/guards/$name.patch"; then
		verdict="the patch does not apply"
	else
		if ! build "$dir.build.log"; then
			verdict="does not build without it"
		elif passes "$test" "$dir"; then
			verdict="$test passes without it"
		fi
		patch -d "$tree" -p1 -s -R <"tests/guards/$name.patch" && build "$logs/build.log" || exit 1
	fi
	if [[ $verdict ]]; then
		echo "not ok $name: $verdict"
		bad=$((bad + 1))
	else
		echo "ok $name: row $(field "$name" Row), $test: $(why "$dir")"
		good=$((good + 1))
	fi
done
echo "$good guards are tested, $bad are not"
((bad == 0))
