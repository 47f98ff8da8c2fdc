#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `make lint`: every check that needs no run of the program. Goes through all
# of them and fails at the end if one complained.
#
#   lint.sh [CHECK]...     format layout shell abi man checkpatch kmod tidy
#   lint.sh --fix-format   let clang-format rewrite what it would complain about
set -uo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
mkdir -p build/lint

# What git knows or would add, so that build/ and editors' files stay out.
sources() {
	git ls-files --cached --others --exclude-standard -- "$@" | sort -u |
		while read -r f; do [[ -f $f ]] && echo "$f"; done
}

check_format() {
	sources '*.cc' '*.hh' | xargs -r clang-format --dry-run -Werror
}

check_tidy() {
	cmake -S daemon -B build/lint/cmake -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
		-DCMAKE_UNITY_BUILD=OFF -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >build/lint/cmake.log ||
		{ cat build/lint/cmake.log; return 1; }
	# Each translation unit the build knows; "N warnings generated" is about
	# headers of others.
	sources '*.cc' | while read -r f; do
		grep -q "\"file\": \"$top/$f\"\|/$f\"" build/lint/cmake/compile_commands.json && echo "$f"
	done | xargs -r -P "$(nproc)" -n 1 clang-tidy --quiet -p build/lint/cmake 2>build/lint/tidy.log
	local status=$?
	grep -v 'warnings\? generated\|^Suppressed\|^Use -header-filter' build/lint/tidy.log
	return $status
}

# Warnings and sparse, on all kernels, in trees of their own.
check_kmod() {
	local rel bad=0
	for rel in $(tests/vm/kernels.sh list); do
		rm -rf "build/lint/kmod/$rel"
		if ! scripts/kmod.sh --out build/lint/kmod "build/kernels/$rel/lib/modules/$rel/build" \
			W=1 C=2 >"build/lint/kmod-$rel.log" 2>&1; then
			tail -n 20 "build/lint/kmod-$rel.log"
			echo "$rel: does not build"
			bad=1
		fi
		# Sparse speaks of the kernel's own headers, too: what names a file of
		# ours counts.
		if grep -E '(kmod|uapi)/[^ ]*:[0-9]+:.*(warning|error):' "build/lint/kmod-$rel.log" |
			sed "s|^.*/$rel/||; s|^|$rel: |"; then
			bad=1
		fi
	done
	return $bad
}

checkpatch() { # EXTRA-IGNORES FILE...
	local more=$1
	shift
	(($#)) || return 0
	# Rules for patches to the kernel's tree that do not fit one of our own, and
	# "mount -t rmemfs rmemfs", which is not a slip of the pen.
	perl build/linux-source/scripts/checkpatch.pl --no-tree --terse --no-summary --show-types \
		--max-line-length=100 --ignore "FILE_PATH_CHANGES,EMBEDDED_FILENAME,REPEATED_WORD$more" \
		"${strict[@]}" --file "$@"
}

# The module to the letter; uapi and tests without the finer points, which
# suppose the kernel's own macros (BIT and the like).
check_checkpatch() {
	local strict=(--strict) bad=0 files
	tests/vm/kernels.sh source || return 1
	# A wait macro evaluates its condition again and again: that is its purpose.
	mapfile -t files < <(sources 'kmod/*.[ch]' | grep -v '^kmod/\(compat\|trace\)\.h$')
	checkpatch ,MACRO_ARG_REUSE "${files[@]}" || bad=1
	# The form of every trace header.
	mapfile -t files < <(sources kmod/trace.h)
	checkpatch ,PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE "${files[@]}" || bad=1
	# Version tests have their one place.
	mapfile -t files < <(sources kmod/compat.h)
	checkpatch ,LINUX_VERSION_CODE,CONSTANT_COMPARISON,MACRO_ARG_UNUSED "${files[@]}" || bad=1
	strict=()
	mapfile -t files < <(sources 'uapi/*.h' 'tests/selftest/*.[ch]' 'examples/*.c')
	checkpatch '' "${files[@]}" || bad=1
	return $bad
}

check_shell() {
	sources '*.sh' .ci/run | xargs -r shellcheck --external-sources --severity=warning
}

# A 32-bit program sees the same structures.
check_abi() {
	make -s -C tests/selftest check-m32
}

# The manual pages name, and the completions offer, the options that the programs
# have.
check_man() {
	make -s programs >build/lint/programs.log 2>&1 || { tail -n 30 build/lint/programs.log; return 1; }
	scripts/check-man.sh && scripts/check-completion.sh && scripts/check-semantics.sh
}

# One place for version tests; a licence on every source file; generated files
# as their source has them; one version.
check_layout() {
	local bad=0 f version
	tests/vm/kernels.sh source || return 1 # netlink-gen.sh has its generator from there
	if sources 'kmod/*' | grep -v '^kmod/compat\.h$' |
		xargs -r grep -nE 'LINUX_VERSION_CODE|KERNEL_VERSION|RHEL_RELEASE' /dev/null; then
		echo "version tests belong in kmod/compat.h"
		bad=1
	fi
	for f in $(sources '*.[ch]' '*.cc' '*.hh' '*.sh' '*.py' '*CMakeLists.txt' Makefile '*/Makefile' '*/Kbuild'); do
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier:' || { echo "$f: no SPDX-License-Identifier"; bad=1; }
	done
	scripts/netlink-gen.sh --check || bad=1
	version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
	grep -qF "MODULE_VERSION(\"$version\")" kmod/main.c || { echo "kmod/main.c: not version $version of dkms.conf"; bad=1; }
	grep -qF "project(rmem VERSION $version " daemon/CMakeLists.txt ||
		{ echo "daemon/CMakeLists.txt: not version $version of dkms.conf"; bad=1; }
	[[ $(sed -n '1s/^rmem (\(.*\)) .*/\1/p' debian/changelog) == "$version" ]] ||
		{ echo "debian/changelog: not version $version of dkms.conf"; bad=1; }
	grep -qF "## [$version]" CHANGELOG.md || { echo "CHANGELOG.md: no version $version of dkms.conf"; bad=1; }
	return $bad
}

# What is to be taken out for tests/guards/run.sh is still there.
check_guards() {
	local bad=0 f
	for f in tests/guards/*.patch; do
		patch -p1 --dry-run -s <"$f" >build/lint/guards.log || { echo "$f does not apply"; bad=1; }
	done
	return $bad
}

if [[ ${1:-} == --fix-format ]]; then
	sources '*.cc' '*.hh' | xargs -r clang-format -i
	exit
fi

(($#)) || set -- format layout guards shell abi man checkpatch kmod tidy
failed=()
for c in "$@"; do
	start=$SECONDS
	if "check_$c"; then
		echo "lint: $c: ok ($((SECONDS - start)) s)"
	else
		echo "lint: $c: FAILED ($((SECONDS - start)) s)"
		failed+=("$c")
	fi
done
((${#failed[@]} == 0)) || { echo "lint: failed: ${failed[*]}"; exit 1; }
