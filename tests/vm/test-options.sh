#!/bin/bash
# SPDX-License-Identifier: MIT
#
# test-options.sh TEST : the options of run.sh for the VM that a test (a script of
# tests/e2e, a program of build/selftest) runs in alone, a word a line: what it
# asks for in its "# vm:" line, else a scratch disk, as the others share.
set -euo pipefail

words=''
[[ $1 != *.sh ]] || words=$(sed -n 's/^# vm: *//p' "$1" | head -n 1)
for word in ${words:-scratch=4G}; do
	case $word in
	icount=1) echo --icount ;;
	*) printf -- '--%s\n%s\n' "${word%%=*}" "${word#*=}" ;;
	esac
done
