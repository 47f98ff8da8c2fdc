# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# What befalls programs, networks, disks and machines while a load is under way. A test sources this
# file instead of lib.sh, starts a load that knows what it has to see (rmem-fsx), and lets some of it happen:
#
#   nemesis_exports=("r=file://$work/file")
#   nemeses 20 daemon_kill server_kill link_loss
#
# A nemesis is a function; `begin` starts it, `end` ends it. The first word of its name says what it
# befalls: two of them may be under way at once if they befall different things. All chance is RMEM_SEED's.

. "$(dirname "$0")/lib.sh"

nemesis_exports=() # what server_* start again
nemesis_store=$work/file # where the first of them is, to be looked at while no server runs
declare -A befell=() # nemesis -> how often

# --- programs -----------------------------------------------------------------

daemon_kill() {
	case $1 in
	begin) stop rmemd KILL ;;
	end) start_rmemd ;;
	esac
}
daemon_restart() {
	case $1 in
	begin) stop rmemd ;;
	end) start_rmemd ;;
	esac
}
daemon_stop() {
	case $1 in
	begin) kill -STOP "${pids[rmemd]}" ;;
	end) kill -CONT "${pids[rmemd]}" ;;
	esac
}
server_kill() {
	case $1 in
	begin)
		stop server KILL
		assert_exit 0 rmem-fsx check "$nemesis_store" "$work/oracle"
		;;
	end) start_server "${nemesis_exports[@]}" ;;
	esac
}
server_restart() {
	case $1 in
	begin) stop server ;;
	end) start_server "${nemesis_exports[@]}" ;;
	esac
}
server_stop() {
	case $1 in
	begin) kill -STOP "${pids[server]}" ;;
	end) kill -CONT "${pids[server]}" ;;
	esac
}

# --- the link -------------------------------------------------------------------

# What a host sends: netem OPTION...
srv_sends() { in_srv tc qdisc replace dev srv0 root netem "$@"; }
cli_sends() { in_cli tc qdisc replace dev cli0 root netem "$@"; }
both_send() {
	srv_sends "$@"
	cli_sends "$@"
}
link_well() {
	in_srv tc qdisc del dev srv0 root 2>/dev/null || true
	in_cli tc qdisc del dev cli0 root 2>/dev/null || true
}
# begin_or_well begin|end COMMAND... : what to do for a nemesis that link_well ends.
begin_or_well() {
	if [[ $1 == begin ]]; then "${@:2}"; else link_well; fi
}

link_cut() { begin_or_well "$1" both_send loss 100%; }
link_deaf() { begin_or_well "$1" cli_sends loss 100%; }
link_mute() { begin_or_well "$1" srv_sends loss 100%; }
link_loss() {
	local percent=0
	random percent 30
	begin_or_well "$1" both_send loss $((percent + 1))%
}
link_reorder() { begin_or_well "$1" both_send delay 10ms 5ms reorder 30% 50%; }
link_duplicate() {
	local percent=0
	random percent 50
	begin_or_well "$1" both_send duplicate $((percent + 1))%
}
# TCP's own checksum finds these.
link_corrupt() {
	local percent=0
	random percent 10
	begin_or_well "$1" both_send corrupt $((percent + 1))%
}
link_far() { begin_or_well "$1" both_send delay 300ms; }
link_narrow() { begin_or_well "$1" both_send rate 1mbit; }
# These it does not find: a byte of one packet in a hundred is another one when it is received. (What
# goes through a veth is not summed; the frames of rmem have checksums of their own.)
link_flip() {
	local ns offset=0
	if [[ $1 == end ]]; then
		in_srv tc qdisc del dev srv0 clsact
		in_cli tc qdisc del dev cli0 clsact
		return
	fi
	for ns in srv cli; do
		random offset 250
		in_ns $ns tc qdisc add dev ${ns}0 clsact
		in_ns $ns tc filter add dev ${ns}0 egress protocol ip flower ip_proto tcp action gact pass random netrand pipe 100 \
			action pedit munge offset $((60 + offset * 4)) u8 invert
	done
}

# --- the server's disk ----------------------------------------------------------------

# Below $disk. Full: what others left is gone, so what a hole freed cannot be had again.
disk_full() {
	case $1 in
	begin) dd if=/dev/zero of="$disk/ballast" bs=64K 2>/dev/null || true ;;
	end) rm "$disk/ballast" ;;
	esac
}
# disk_make FILE BYTES: a disk that can be told to fail, with a file system on it, at $disk.
disk_make() {
	modprobe -a loop dm-flakey
	export DM_DISABLE_UDEV=1 # there is none
	truncate -s "$2" "$1"
	disk_loop=$(losetup --find --show "$1")
	disk_sectors=$(($2 / 512))
	dmsetup create rmem-flaky --table "0 $disk_sectors linear $disk_loop 0"
	mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=0 /dev/mapper/rmem-flaky
	mkdir -p "$disk"
	mount -o noatime,lazytime,errors=continue /dev/mapper/rmem-flaky "$disk"
}
disk_unmake() {
	disk_is "linear $disk_loop 0"
	umount -l "$disk"
	dmsetup remove --retry rmem-flaky
	losetup -d "$disk_loop"
}
disk_is() { # TABLE
	dmsetup suspend --nolockfs --noflush rmem-flaky
	dmsetup load rmem-flaky --table "0 $disk_sectors $1"
	dmsetup resume rmem-flaky
}
disk=$work/disk disk_loop='' disk_sectors=0

# Writes fail, as those that are under way.
disk_error() {
	case $1 in
	begin) disk_is "flakey $disk_loop 0 0 3600 1 error_writes" ;;
	end) disk_is "linear $disk_loop 0" ;;
	esac
}

# All that comes fails.
disk_dead() {
	case $1 in
	begin) disk_is "flakey $disk_loop 0 0 3600" ;;
	end) disk_is "linear $disk_loop 0" ;;
	esac
}

# --- machines ---------------------------------------------------------------------------

# The server's, a VM (peer_up): as the power fails. $host_seen says what its disk has then.
host_reset() {
	local seen
	case $1 in
	begin)
		peer_reset
		for seen in "${host_seen[@]}"; do
			"$seen"
		done
		;;
	end) peer_server "${nemesis_exports[@]}" ;;
	esac
}
host_seen=()
# All tasks are frozen for a second, as on the way to sleep; whoever cannot be is a finding.
machine_suspend() {
	[[ $1 == begin ]] || return 0
	echo 0 >/sys/power/sync_on_suspend
	echo freezer >/sys/power/pm_test
	echo 1 >/sys/module/suspend/parameters/pm_test_delay
	echo freeze >/sys/power/state || fail "the machine does not go to sleep"
	echo none >/sys/power/pm_test
}
# Up to two days to and fro.
machine_clock() {
	local now
	case $1 in
	begin)
		random clock_jump 345600
		clock_jump=$((clock_jump - 172800))
		;;
	end) clock_jump=$((-clock_jump)) ;;
	esac
	now=$(date +%s)
	date -s "@$((now + clock_jump))" >/dev/null
}
clock_jump=0
machine_cpu() {
	if [[ $1 == begin ]]; then
		echo 0 >/sys/devices/system/cpu/cpu1/online
	else
		echo 1 >/sys/devices/system/cpu/cpu1/online
	fi
}
# It waits, unkillably, for pages that are being written, as for those of any file system: if the
# server is away just then, for the other nemesis to end. So it must not keep that from ending.
memory_compact() {
	[[ $1 == begin ]] && compacted || return 0
	echo 1 >/proc/sys/vm/compact_memory &
	compacting=$!
}
compacted() { [[ ! $compacting ]] || ! kill -0 "$compacting" 2>/dev/null; }
compacting=''
memory_drop() { [[ $1 == end ]] || echo 3 >/proc/sys/vm/drop_caches; }

# --- all together ---------------------------------------------------------------------------

# nemeses COUNT NAME... : so many times, one or two of them, for up to $nemesis_ms.
nemesis_ms=1500
nemeses() {
	local count=$1 i one=0 two=0
	shift
	for ((i = 0; i < count; i++)); do
		random one $#
		random two $#
		one=${*:one+1:1} two=${*:two+1:1}
		nemesis_pause 3
		nemesis begin "$one"
		if [[ ${one%%_*} != "${two%%_*}" ]]; then
			nemesis_pause 2
			nemesis begin "$two"
			nemesis_pause 1
			nemesis end "$one"
			nemesis_pause 2
			nemesis end "$two"
		else
			nemesis_pause 1
			nemesis end "$one"
		fi
		nemesis_over
	done
}
nemesis() { # begin|end NAME
	[[ $1 == end ]] || befell[$2]=$((${befell[$2]:-0} + 1))
	"$2" "$1"
}
nemesis_pause() { # PART: a random time, of that part of $nemesis_ms
	local ms=0
	random ms $((nemesis_ms / $1))
	sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))" # the moment is what is random here
}
# The load goes on by itself once it may; nobody has ended it.
load_done() { rmem-fsx progress "$work/oracle"; }
nemesis_over() {
	wait_for -t 120 at_least $(($(load_done) + 20)) load_done
	wait_for -t 120 compacted
	alive load || fail "the load ended: $(<"$work/load.log")"
}
nemeses_befell() {
	local name
	for name in $(printf '%s\n' "${!befell[@]}" | sort); do
		printf '%s %d ' "$name" "${befell[$name]}"
	done
}
