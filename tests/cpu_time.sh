# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# For scripts that source it: CPU time in seconds of what this shell has started and waited for.
cpu_is() { # NAME-OF-RESULT
	local -a stat
	read -ra stat <"/proc/$BASHPID/stat"
	printf -v "$1" %d $(((stat[15] + stat[16]) / cpu_ticks))
}
cpu_ticks=$(getconf CLK_TCK)
