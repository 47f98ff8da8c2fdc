#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-options.sh TEST : the options of run.sh for the VM that a test (a script of
# tests/e2e, a program of build/selftest) runs in alone, a word a line: what it
# asks for in its "# vm:" line, else a scratch disk, as the others share; for a program
# the checks of memory, too.
set -euo pipefail

words='scratch=4G memory-checks=1'
[[ $1 != *.sh ]] || words=$(sed -n 's/^# vm: *//p' "$1" | head -n 1)
for word in ${words:-scratch=4G}; do
	case $word in
	icount=1 | memory-checks=1) echo "--${word%=1}" ;;
	*) printf -- '--%s\n%s\n' "${word%%=*}" "${word#*=}" ;;
	esac
done
