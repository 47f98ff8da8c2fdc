#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Boots a kernel of build/kernels in QEMU, runs a command in it and returns the
# command's exit status. The guest's root file system is the host's, seen
# through an overlay: what the guest writes vanishes, except in /out.
#
#   run.sh [options] [--] COMMAND [ARG]...
#   run.sh [options] --interactive            a root shell on this terminal
#
#   --kernel WANT       release, series, or an instrumented one as 6.12-kasan
#                       (default: the newest wanted one)
#   --mem MB            memory of the guest (default 1024)
#   --smp N             CPUs of the guest (default 2)
#   --icount            one CPU that counts instructions: 1 instruction = 1 ns
#   --scratch SIZE      ext4 disk of SIZE (4G, 512M) at /scratch, made afresh
#   --keep-scratch FILE the disk is FILE: kept afterwards, used as it is when
#                       it exists, else made (--scratch gives the size)
#   --peer MB           a second VM beside this one, the other host: on a
#                       network of the two, without the module, with an ext4
#                       disk of its own that outlives its resets. It does what
#                       `tests/vm/peer.py run` in this one tells it to
#   --net N,DIR         (for --peer) host N of the network in DIR, 1 or 2:
#                       10.78.0.N and fd78::N
#   --reboot            a reset of the guest boots it again and starts the
#                       command anew, instead of ending the run
#   --timeout SECONDS   for the command (default 600); multiplied by
#                       RMEM_TIMEOUT_SCALE on slow machines
#   --memory-checks     what a stock kernel can check of its memory: red zones and
#                       poison of slabs (slub_debug), poisoned free pages, KFENCE
#                       where the kernel has it. An instrumented one has better
#   --append ARGS       more kernel arguments
#   --no-module         do not load rmem.ko
#   --panic-on-warn     stop at the first WARN
#   --no-dmesg-check    do not judge the kernel log
#   --run-dir DIR       keep everything about this run in DIR: console.log,
#                       out/ (the guest's /out, with dmesg.txt), stdout.log
#   --quiet             do not copy the command's output to our own
#
# Command output goes to our stdout and stderr; the console to console.log.
# The command finds itself in the directory run.sh was called in, with build/
# first on PATH, no stdin, and the RMEM_* variables of the caller. Programs and
# modules of build/ are those that were there when run.sh started: a build
# meanwhile does no harm.
#
# Exit status: that of the command, or
#   250  the command succeeded, but the kernel log shows trouble
#   251  the guest died (panic, reset) before the command ended
#   252  timeout
#   253  the rig itself failed
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
PATH=$PATH:/sbin:/usr/sbin

e_dmesg=250 e_died=251 e_timeout=252 e_rig=253

die() {
	echo "vm: $*" >&2
	exit $e_rig
}

kernel='' mem=1024 smp=2 icount='' scratch='' keep_scratch='' timeout=600
append='' load_module=yes dmesg_check=yes run_dir='' interactive='' quiet=''
peer='' net='' reboot='' memory_checks=''

while (($#)); do
	case $1 in
	--kernel) kernel=$2; shift ;;
	--mem) mem=$2; shift ;;
	--smp) smp=$2; shift ;;
	--icount) icount=yes ;;
	--scratch) scratch=$2; shift ;;
	--keep-scratch) keep_scratch=$2; shift ;;
	--peer) peer=$2; shift ;;
	--net) net=$2; shift ;;
	--reboot) reboot=yes ;;
	--timeout) timeout=$2; shift ;;
	--memory-checks) memory_checks=yes ;;
	--append) append+=" $2"; shift ;;
	--no-module) load_module= ;;
	--panic-on-warn) append+=" panic_on_warn=1" ;;
	--no-dmesg-check) dmesg_check= ;;
	--run-dir) run_dir=$2; shift ;;
	--interactive) interactive=yes ;;
	--quiet) quiet=yes ;;
	-h | --help) sed -n '3,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
	--) shift; break ;;
	-*) die "unknown option $1; see run.sh --help" ;;
	*) break ;;
	esac
	shift
done
[[ $interactive || $# -gt 0 ]] || die "no command; see run.sh --help"
timeout=$((timeout * ${RMEM_TIMEOUT_SCALE:-1}))

qemu=$(command -v qemu-system-x86_64) || die "no qemu-system-x86_64; 'make deps' installs it"
if [[ ! $kernel ]]; then
	kernel=$("$here/kernels.sh" list | sort -V | tail -n 1)
	[[ $kernel ]] || die "no kernel under build/kernels; 'make kernels' fetches them"
fi
rel=$("$here/kernels.sh" resolve "$kernel") || exit $e_rig

# --- the run directory ------------------------------------------------------

mkdir -p "$top/build/vm"
keep=
if [[ $run_dir ]]; then
	keep=yes
	mkdir -p "$run_dir"
	run=$(cd "$run_dir" && pwd)
	# Left by an earlier run in the same place.
	rm -rf "$run"/{build,out,cmd,guest.env,status,console.log,stdout.log,stderr.log,dmesg.txt,peer}
else
	# Failed runs stay for a day.
	find "$top/build/vm" -maxdepth 1 -name 'run.*' -mmin +1440 -exec rm -rf {} +
	run=$(mktemp -d "$top/build/vm/run.XXXXXX")
fi
mkdir -p "$run/out" "$run/build"

qemu_pid='' peer_pid='' peer_net=''
end_peer() {
	[[ $peer_pid ]] || return 0
	kill "$peer_pid" 2>/dev/null || true
	wait "$peer_pid" || true
	peer_pid=''
}
cleanup() {
	[[ ! $qemu_pid ]] || kill "$qemu_pid" 2>/dev/null || true
	end_peer
	[[ ! $peer_net ]] || rm -rf "$peer_net"
	rm -rf "$run/build" "$run"/*.fifo
	[[ $keep_scratch ]] || rm -f "$run/scratch.img"
	[[ $keep ]] || rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What a build replaces, as it is now. Hard links: linkers and install(1) make
# new files, so a link keeps the old one. Programs without what is for debuggers,
# four fifths of them, which the guest had to keep in memory.
snapshot() {
	local f
	for f in "$top"/build/*; do
		[[ -f $f && -x $f ]] || continue
		strip -g -o "$run/build/${f##*/}" "$f" 2>/dev/null || cp -lf "$f" "$run/build/"
	done
	for f in selftest examples detectors; do
		# Once more if a build took a file away in between.
		[[ -d $top/build/$f ]] && { cp -al "$top/build/$f" "$run/build/" 2>/dev/null ||
			cp -alf "$top/build/$f" "$run/build/"; }
	done
	if [[ $load_module && -f $top/build/kmod/$rel/rmem.ko ]]; then
		mkdir -p "$run/build/kmod/$rel"
		cp -lf "$top/build/kmod/$rel/rmem.ko" "$run/build/kmod/$rel/"
	fi
	return 0
}
snapshot

# --- the other machine ------------------------------------------------------

if [[ $peer ]]; then
	# Not below $run: the path of a unix socket has to be short.
	peer_net=$(mktemp -d "${TMPDIR:-/tmp}/rmem-net.XXXXXX")
	net=1,$peer_net
	"$here/run.sh" --kernel "$rel" --mem "$peer" --smp 1 --scratch 1G --no-module --reboot \
		--net "2,$peer_net" --run-dir "$run/peer" --no-dmesg-check --timeout "$timeout" --quiet \
		-- "$here/peer.py" serve </dev/null >"$run/peer.log" 2>&1 &
	peer_pid=$!
fi

# --- the command ------------------------------------------------------------

# The command as a script, so that no quoting is lost on the way.
{
	{ compgen -v RMEM_ || true; } | while read -r v; do
		printf 'export %s=%q\n' "$v" "${!v}"
	done
	printf 'cd %q || exit 253\n' "$PWD"
	[[ $interactive ]] || printf 'exec %s\n' "${*@Q}"
} >"$run/cmd"

{
	printf '%s=%q\n' rel "$rel" top "$top" cwd "$PWD" timeout "$timeout" \
		interactive "$interactive" load_module "$load_module" \
		scratch "$scratch$keep_scratch" host "${net%%,*}" reboot "$reboot"
	if [[ $interactive ]]; then
		printf '%s=%q\n' term "${TERM:-linux}" tty_size "$(stty size 2>/dev/null || echo 24 80)"
	fi
} >"$run/guest.env"

# --- the machine ------------------------------------------------------------

args=(
	-name "rmem-vm-$$" -machine q35 -m "$mem"
	-nodefaults -no-user-config -display none
	-kernel "$("$here/kernel-image.sh" "$rel")"
	-initrd "$("$here/initramfs.sh" "$rel")"
	-serial "file:$run/console.log"
	-device virtio-serial-pci,id=vs
	-virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
	-virtfs "local,path=$run/out,mount_tag=out,security_model=none,multidevs=remap"
)

# No ERMS and FSRM: the kernel then copies by words and not by rep movsb, which is
# emulated byte by byte, seven times slower, and counted as one instruction.
cpu=max,erms=off,fsrm=off
if [[ $icount ]]; then
	args+=(-accel tcg,thread=single -icount shift=0,sleep=off -smp 1 -cpu "$cpu")
else
	# One thread for all CPUs of the guest: on a host with few free cores a
	# thread for each is several times slower, because the guest then spins on
	# locks whose holder the host has put aside. It also lets two VMs run side
	# by side on two cores. RMEM_ACCEL=tcg,thread=multi for true parallelism,
	# RMEM_ACCEL=kvm where that works.
	args+=(-accel "${RMEM_ACCEL:-tcg,thread=single}" -smp "$smp" -cpu "$cpu")
fi

[[ $reboot ]] || args+=(-no-reboot)

if [[ $net ]]; then
	# Datagrams: neither has to be there first, and one may vanish.
	n=${net%%,*} dir=${net#*,}
	args+=(-netdev "dgram,id=net,local.type=unix,local.path=$dir/$n,remote.type=unix,remote.path=$dir/$((3 - n))"
		-device "virtio-net-pci,netdev=net,mac=52:54:00:78:00:0$n")
fi

if [[ $scratch || $keep_scratch ]]; then
	img=${keep_scratch:-$run/scratch.img}
	if [[ ! -e $img ]]; then
		truncate -s "${scratch:-4G}" "$img" &&
			mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 "$img" ||
			die "cannot make the scratch disk $img"
	fi
	args+=(-drive "file=$img,if=none,id=scratch,format=raw,cache=unsafe,discard=unmap"
		-device virtio-blk-pci,drive=scratch,serial=scratch)
fi

# Small guests cannot rely on physically contiguous buffers for 9p requests.
msize=131072
((mem > 512)) || msize=32768

# The thresholds of the watchdogs allow for emulation on a busy host; real
# hangs last longer.
cmdline="console=ttyS0 loglevel=7 log_buf_len=4M panic=-1 oops=panic"
cmdline+=" mitigations=off tsc=reliable no_timer_check random.trust_cpu=on"
cmdline+=" watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120"
# The emulator translates code once for each address it is found at: programs at random
# addresses take three times as long to start. Four levels of page tables are walked
# faster than five.
cmdline+=" norandmaps nokaslr no5lvl"
# The guest would measure the time stamp counter against a timer, and on a busy host find anything:
# 53 MHz for 2,443 was seen, with which its clock is 46 times too fast. It is the host's.
[[ $icount || ${RMEM_ACCEL:-} == kvm* ]] || cmdline+=" tsc_early_khz=$("$here/tsc.py")"
if [[ $rel != *-amd64 ]]; then
	# Of an instrumented kernel (debug-kernel.sh) all reports, and all that it can watch.
	cmdline+=" kasan_multi_shot page_owner=on page_poison=1 printk.devkmsg=on"
elif [[ $memory_checks ]]; then
	cmdline+=" slub_debug=FZPU page_poison=1 kfence.sample_interval=20"
fi
# The log is judged at the end; what a long test begins with shall still be in it.
[[ ! ${RMEM_LONG:-} ]] || cmdline+=" log_buf_len=16M"
cmdline+=" rmem_init=$here/guest-init.sh rmem_run=$run rmem_msize=$msize$append"
args+=(-append "$cmdline")

port=0
add_port() { # NAME CHARDEV-OPTIONS
	port=$((port + 1))
	args+=(-chardev "$2,id=$1" -device "virtserialport,bus=vs.0,nr=$port,chardev=$1,name=$1")
}
add_port status "file,path=$run/status"

relays=()
if [[ $interactive ]]; then
	args+=(-chardev stdio,id=tty,signal=off -device virtconsole,bus=vs.0,nr=9,chardev=tty)
	"$qemu" "${args[@]}" || die "qemu failed"
else
	for s in out err; do
		mkfifo "$run/$s.fifo"
		add_port $s "file,path=$run/$s.fifo"
	done
	if [[ $quiet ]]; then
		cat "$run/out.fifo" >"$run/stdout.log" & relays+=($!)
		cat "$run/err.fifo" >"$run/stderr.log" & relays+=($!)
	else
		tee "$run/stdout.log" <"$run/out.fifo" & relays+=($!)
		tee "$run/stderr.log" <"$run/err.fifo" >&2 & relays+=($!)
	fi
	"$qemu" "${args[@]}" </dev/null 2>"$run/qemu.log" &
	qemu_pid=$!

	# The guest watches over the command and leaves a report when it takes too
	# long; this is for a guest that cannot, and covers booting.
	limit=$((timeout + 120 * ${RMEM_TIMEOUT_SCALE:-1}))
	hung=
	while kill -0 "$qemu_pid" 2>/dev/null; do
		if ((SECONDS > limit)); then
			hung=yes
			kill -KILL "$qemu_pid"
			break
		fi
		sleep 0.2
	done
	wait "$qemu_pid" || true
	qemu_pid=''
	# A QEMU that never opened the pipes leaves their readers waiting.
	for s in out err; do
		: <>"$run/$s.fifo"
	done
	wait "${relays[@]}" || true
fi

# --- the verdict ------------------------------------------------------------

status=0
said=$(tail -n 1 "$run/status" 2>/dev/null || true)
case $said in
"exit "*) status=${said#exit } ;;
timeout)
	echo "vm: timeout: the command did not end in $timeout s; see $run/out, $run/console.log" >&2
	status=$e_timeout
	;;
"rig "*)
	echo "vm: ${said#rig }" >&2
	status=$e_rig
	;;
*)
	if [[ ${hung:-} ]]; then
		echo "vm: timeout: the guest gave no answer for $limit s; see $run/console.log" >&2
		status=$e_timeout
	elif [[ ! -s $run/console.log ]]; then
		echo "vm: qemu failed:" >&2
		cat "$run/qemu.log" >&2 || true
		status=$e_rig
	else
		echo "vm: the guest died; its last words:" >&2
		tail -n 40 "$run/console.log" >&2
		status=$e_died
	fi
	;;
esac

# The guest's own copy is complete; the console's is what a dead guest leaves.
if [[ -s $run/out/dmesg.txt ]]; then
	mv "$run/out/dmesg.txt" "$run/dmesg.txt"
else
	cp "$run/console.log" "$run/dmesg.txt" 2>/dev/null || true
fi
# The peer's kernels, all of them, are judged together with this one.
end_peer
if [[ -s $run/peer/console.log ]]; then
	{
		echo "== the peer"
		cat "$run/peer/console.log"
	} >>"$run/dmesg.txt"
fi
if [[ $dmesg_check ]] && ! "$here/dmesg-check.sh" "$run/dmesg.txt" >&2; then
	((status)) || status=$e_dmesg
fi
# What went wrong on our side keeps its traces.
if ((status)) && [[ ! $keep && ! $interactive ]] && ((status >= e_dmesg)); then
	keep=yes
	echo "vm: traces kept in $run" >&2
fi
exit "$status"
