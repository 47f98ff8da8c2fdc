#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Process 1 of the VM once its root file system stands (initramfs-init):
# completes the system, loads the module, runs the command of run.sh and
# powers off.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# shellcheck disable=SC2154  # from the kernel command line
run=$rmem_run
unset rmem_run rmem_init rmem_msize
# shellcheck source=/dev/null
. "$run/guest.env"
: "${rel:?}" "${top:?}" "${cwd:?}" "${timeout:?}" "${interactive?}" "${load_module?}" "${scratch?}"
: "${host?}" "${reboot?}"

# The kernel has better victims than the processes that run the test.
echo -1000 >/proc/self/oom_score_adj

# --- output channels --------------------------------------------------------

port() {
	local p
	for p in /sys/class/virtio-ports/*; do
		[[ $(cat "$p/name" 2>/dev/null) == "$1" ]] && echo "/dev/${p##*/}"
	done
}
exec 5>"$(port status)"

# finish STATUS-LINE: last words to the host, then off.
finish() {
	sync -f /scratch 2>/dev/null
	dmesg >/out/dmesg.tmp 2>/dev/null && mv /out/dmesg.tmp /out/dmesg.txt
	if mountpoint -q /scratch; then
		umount /scratch 2>/dev/null || mount -o remount,ro /scratch 2>/dev/null
	fi
	echo "$*" >&5
	# With -no-reboot the machine ends by a reset, and faster.
	[[ ! $reboot ]] || echo o >/proc/sysrq-trigger
	[[ $reboot ]] || echo b >/proc/sysrq-trigger
	sleep 600
}
rig_failed() { finish "rig guest set-up failed: $*"; }

# --- file systems -----------------------------------------------------------

mkdir -p /out /dev/pts /dev/shm
mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072 out /out || rig_failed "no /out"
mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for d in /proc/self/fd:fd fd/0:stdin fd/1:stdout fd/2:stderr; do
	[[ -e /dev/${d#*:} ]] || ln -s "${d%:*}" "/dev/${d#*:}"
done

cp "$run/cmd" /.rmem-cmd
mkdir -p "/lib/modules/$rel"
mount --bind "$top/build/kernels/$rel/lib/modules/$rel" "/lib/modules/$rel" || rig_failed "no modules"

# What lies below /tmp or /run of the host would be hidden by fresh ones.
for d in /run /tmp; do
	[[ $top/ == $d/* || $cwd/ == $d/* || $run/ == $d/* ]] || mount -t tmpfs -o mode=1777 tmpfs "$d"
done
chmod 0755 /run
mkdir -p /run/netns /run/lock

if [[ $scratch ]]; then
	modprobe -a virtio_blk ext4 || rig_failed "no modules for the scratch disk"
	mkdir -p /scratch
	for _ in {1..50}; do
		[[ -b /dev/vda ]] && break
		sleep 0.1
	done
	mount -t ext4 -o discard /dev/vda /scratch || rig_failed "cannot mount the scratch disk"
fi

# From here on build/ is the snapshot, in memory (initramfs.sh says why).
mkdir /run/.build
{
	mount -t tmpfs build /run/.build &&
		cp -a "$run/build/." /run/.build &&
		mount --move /run/.build "$top/build"
} || rig_failed "no build directory"

# --- system -----------------------------------------------------------------

hostname rmem-vm
ip link set lo up
if [[ $host ]]; then
	modprobe virtio_net || rig_failed "no virtio_net"
	for _ in {1..50}; do
		[[ -e /sys/class/net/eth0 ]] && break
		sleep 0.1
	done
	{
		ip addr add "10.78.0.$host/24" dev eth0 &&
			ip addr add "fd78::$host/64" dev eth0 nodad &&
			ip link set eth0 up
	} || rig_failed "no network"
fi
ulimit -c 0
getent group rmem >/dev/null || groupadd -r rmem 2>/dev/null || echo 'rmem:x:970:' >>/etc/group
export PATH=$top/build:$PATH

module=$top/build/kmod/$rel/rmem.ko
if [[ $load_module && -e $module ]]; then
	for m in $(modinfo -F depends "$module" | tr , ' '); do
		modprobe "$m"
	done
	insmod "$module" || rig_failed "insmod rmem.ko: $(dmesg | tail -n 1)"
fi
echo booted >&5

# --- the command ------------------------------------------------------------

run_interactive() {
	# shellcheck source=/dev/null
	. /.rmem-cmd
	export TERM=${term:-linux}
	# shellcheck disable=SC2086,SC2154  # two numbers, of guest.env
	set -- $tty_size
	stty rows "$1" cols "$2" </dev/hvc0
	echo "rmem VM, Linux $rel; build/ is on PATH, 'exit' ends it; writes vanish, but for /out" >/dev/hvc0
	# What the caller's own start-up file puts on PATH comes after ours.
	printf '%s\n' '[[ ! -f ~/.bashrc ]] || . ~/.bashrc' "PATH=$top/build:\$PATH" >/.rmem-rc
	setsid -c bash --rcfile /.rmem-rc -i </dev/hvc0 >/dev/hvc0 2>&1
	finish "exit 0"
}
[[ ! $interactive ]] || run_interactive

# Through pipes, because a port cannot be opened twice: a command that opens
# /dev/stderr would fail.
mkfifo /run/.rmem-out /run/.rmem-err
cat </run/.rmem-out >"$(port out)" & relays=($!)
cat </run/.rmem-err >"$(port err)" & relays+=($!)

(
	echo 0 >/proc/self/oom_score_adj
	exec 5>&-
	exec setsid bash /.rmem-cmd
) </dev/null >/run/.rmem-out 2>/run/.rmem-err &
pid=$!

# Left behind by a command that does not end: who waits where.
(
	sleep "$timeout"
	ps axwwf -o pid,ppid,stat,wchan:30,args >/out/timeout-ps.txt 2>&1
	echo "rmem-rig: a timeout; who waits where:" >/dev/kmsg # what follows is not judged
	echo w >/proc/sysrq-trigger
	echo l >/proc/sysrq-trigger
	sleep 1
	finish timeout
) &

wait "$pid"
status=$?

# Processes the command left running may still hold the pipes.
for _ in {1..30}; do
	kill -0 "${relays[0]}" 2>/dev/null || kill -0 "${relays[1]}" 2>/dev/null || break
	sleep 0.1
done
finish "exit $status"
