#!/bin/bash
# SPDX-License-Identifier: MIT
#
# guest.sh LINK... : in the VM, measures every peer over each of the links, all of
# them on loopback, and leaves /out/LINK.tsv (docs/benchmarks.md).
#
#   RMEM_BENCH_SIZE=16MiB   bytes of everything that is measured
#   RMEM_BENCH_ROUNDS=1     rounds that count
#   RMEM_BENCH_PEERS=REGEX  only these
#   RMEM_BENCH_CASES="sequential random"

# While an idle guest waits for the host, for a program's pages for instance, its
# clock runs ahead to the next timer, and the next. A busy guest's does not.
(while :; do :; done) &
busy=$!
chrt --idle -p 0 $busy
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"

size=${RMEM_BENCH_SIZE:-16MiB} rounds=${RMEM_BENCH_ROUNDS:-1}
server=tcp://127.0.0.1:7071

# Nothing is pushed that nobody has asked for.
sysctl -q vm.dirty_writeback_centisecs=360000
# For whoever has a connection that was idle meanwhile: nobody begins with ten segments again.
sysctl -q net.ipv4.tcp_slow_start_after_idle=0

mkdir "$work/bin"
for name in rmem-bench rmem-server rmemctl rmemd; do
	strip -o "$work/bin/$name" "$(command -v $name)"
done
PATH=$work/bin:$PATH

# netem OPTION... of a link; both ways go through one queue.
link() { # NAME
	case $1 in
	rtt0) ;;
	rtt1) echo delay 500us ;;
	rtt5) echo delay 2500us ;;
	rtt25) echo delay 12500us ;;
	rtt1-1gbit) echo delay 500us rate 1gbit ;;
	rtt5-1gbit) echo delay 2500us rate 1gbit ;;
	rtt25-1gbit) echo delay 12500us rate 1gbit ;;
	rtt5-200mbit) echo delay 2500us rate 200mbit ;;
	*) fail "there is no link $1" ;;
	esac
}
use_link() { # NAME
	local options
	options=$(link "$1")
	tc qdisc del dev lo root 2>"$work/.tc" || true
	# shellcheck disable=SC2086  # words
	[[ ! $options ]] || tc qdisc replace dev lo root netem limit 100000 $options
}

wanted() { [[ $1 =~ ${RMEM_BENCH_PEERS:-.} ]]; }

# --- the peers, each with bytes of its own ----------------------------------------

arguments=()

nbd() { # NAME INDEX CONNECTIONS READ-AHEAD-KIB
	wanted "$1" || return 0
	rmem-bench make "$work/$1" --size "$size"
	nbdkit --pidfile "$work/$1.pid" --port $((10809 + $2)) --ipaddr 127.0.0.1 file "$work/$1"
	nbd-client 127.0.0.1 $((10809 + $2)) "/dev/nbd$2" -connections "$3" -block-size 4096 -name '' >"$work/$1.client"
	echo "$4" >"/sys/block/nbd$2/queue/read_ahead_kb"
	arguments+=(--file "$1=/dev/nbd$2")
}
fuse() { # NAME THREADS READ-AHEAD-KIB
	wanted "$1" || return 0
	mkdir "$work/$1.mount"
	start "$1" rmem-bench fuse "$work/$1.mount" --server $server --size "$size" --threads "$2" --readahead "$3KiB"
	bdi=/sys/class/bdi/$(mountpoint -d "$work/$1.mount")
	echo "$3" >"$bdi/read_ahead_kb"
	if [[ $1 == fuse-ra ]]; then
		# Else a hundredth of all memory may be dirty there, and writing is slowed down.
		echo 100 >"$bdi/max_ratio"
		[[ ! -e $bdi/strict_limit ]] || echo 0 >"$bdi/strict_limit"
	fi
	arguments+=(--file "$1=$work/$1.mount/pattern")
}

modprobe -q -a sch_netem nbd fuse tcp_bbr || true
start peers rmem-bench serve --listen $server --size "$size"
for peer in tcp uffd-4k uffd-64k uffd-bg anon tmpfs; do
	! wanted $peer || arguments+=(--peer "$peer")
done
[[ " ${arguments[*]} " == *" --peer "* ]] || arguments+=(--peer none)
nbd nbd-c1 0 1 128
nbd nbd-c4 1 4 4096
fuse fuse 4 128
fuse fuse-ra 4 4096

chunks=() exports=()
for chunk in 4k 64k 256k; do
	wanted rmem:$chunk || continue
	chunks+=("$chunk")
	rmem-bench make "$work/$chunk.file" --size "$size"
	exports+=(--export "$chunk=file://$work/$chunk.file")
done
if ((${#chunks[@]})); then
	start server rmem-server --listen tcp://127.0.0.1:7070 --state-dir "$work/state" "${exports[@]}"
	start_rmemd
	for chunk in "${chunks[@]}"; do
		assert_exit 0 rmemctl attach "$chunk" "rmem://127.0.0.1/$chunk" --push-interval 300s --chunk "${chunk^^}iB"
		arguments+=(--region "/dev/rmem-$chunk")
	done
	! wanted rmem:256k || arguments+=(--pulled-region /dev/rmem-256k)
fi

for which in ${RMEM_BENCH_CASES:-}; do arguments+=(--case "$which"); done
bench() { # ARG...
	rmem-bench run --server $server --size "$size" "${arguments[@]}" "$@"
}

# Brings all code into memory.
bench --rounds 1 --no-warm-up >"$work/.warm"
kill $busy
wait $busy || true

# Connections begin as the link is; those of most peers are made by each run anyway.
ports() { ss -Htn state established dport = :7070 | awk '{ print $3 }' | sort; }
reconnected() { # PORTS: of before
	local now
	now=$(ports)
	[[ $(wc -l <<<"$now") == $(wc -l <<<"$1") && ! $(comm -12 <(echo "$1") <(echo "$now")) ]]
}
reconnect() {
	local before chunk
	before=$(ports)
	ss -K dport = :7070 >"$work/.ss"
	wait_for reconnected "$before"
	for chunk in "${chunks[@]}"; do wait_for region_is "$chunk" state active; done
}

for name in "$@"; do
	use_link "$name"
	reconnect
	note "link $name: $(link "$name")"
	bench --rounds "$rounds" --tsv "/out/$name.tsv"
done
use_link rtt0
for i in 0 1; do [[ ! -b /dev/nbd$i ]] || nbd-client -d /dev/nbd$i >"$work/.nbd" || true; done
umount "$work"/fuse*.mount 2>"$work/.umount" || true
