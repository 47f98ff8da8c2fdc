#!/bin/bash
# SPDX-License-Identifier: MIT
#
# guest.sh LINK... -- LINK... : in the VM, measures every peer over each of the first links
# and every transport over each of the others, all of them on loopback, and leaves
# /out/LINK.tsv (docs/benchmarks.md).
#
#   RMEM_BENCH_SIZE=16MiB   bytes of everything that is measured
#   RMEM_BENCH_ROUNDS=1     rounds that count, of the peers
#   RMEM_BENCH_PEERS=REGEX  only these
#   RMEM_BENCH_CASES="sequential random"
#   RMEM_BENCH_TRANSPORTS="tcp tls ktls quic"  none if empty. tcp-rto5: tcp, where the route says
#                           rto_min 5ms; tcp-hedge: where rmemd is told --hedge auto;
#                           quic-cubic: quic with that congestion control
#   RMEM_BENCH_SAMPLES=2048 isolated pages, for each transport and link
#   RMEM_BENCH_BULKS=5      cold reads of everything, likewise

# While an idle guest waits for the host, for a program's pages for instance, its
# clock runs ahead to the next timer, and the next. A busy guest's does not.
(while :; do :; done) &
busy=$!
chrt --idle -p 0 $busy
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"

size=${RMEM_BENCH_SIZE:-16MiB} rounds=${RMEM_BENCH_ROUNDS:-1}
server=tcp://127.0.0.1:7071

peer_links=()
while (($#)) && [[ $1 != -- ]]; do
	peer_links+=("$1")
	shift
done
transport_links=("${@:2}")
transports=${RMEM_BENCH_TRANSPORTS-tcp tls ktls quic}
cases=()
for which in ${RMEM_BENCH_CASES:-}; do [[ $which == transport-* ]] || cases+=("$which"); done
# Whether the case is one of those that are wanted.
case_wanted() { [[ ! ${RMEM_BENCH_CASES:-} || " $RMEM_BENCH_CASES " == *" $1 "* ]]; }

# Nothing is pushed that nobody has asked for.
sysctl -q vm.dirty_writeback_centisecs=360000
# For whoever has a connection that was idle meanwhile: nobody begins with ten segments again.
sysctl -q net.ipv4.tcp_slow_start_after_idle=0

# netem OPTION... of a link, each way.
link() { # NAME
	case $1 in
	*-loss1) echo "$(link "${1%-loss1}")" loss 1% ;;
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
	local options way
	options=$(link "$1")
	tc qdisc del dev lo root 2>"$work/.tc" || true
	# What gets lost are packets as Ethernet has them, not 64 KiB at once; and these would keep a
	# slow link busy for 2.6 ms each.
	if [[ $1 == *-loss* || $1 == *-200mbit* ]]; then
		ip link set lo mtu 1500 gso_max_segs 1
	else
		ip link set lo mtu 65536 gso_max_segs 65535
	fi
	[[ $options ]] || return 0
	# A queue for each way, as a cable has: what goes to a client is what goes to a port that the
	# kernel has chosen, 32768 or higher.
	tc qdisc add dev lo root handle 1: prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
	tc filter add dev lo parent 1: protocol ip u32 match ip dport 0x8000 0x8000 flowid 1:2
	for way in 1 2; do
		# shellcheck disable=SC2086  # words
		tc qdisc add dev lo parent 1:$way handle 1$way: netem limit 100000 $options
	done
}

wanted() { [[ $1 =~ ${RMEM_BENCH_PEERS:-.} ]]; }

# --- the peers, each with bytes of its own ----------------------------------------

arguments=() chunks=()

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

bench() { # ARG...
	rmem-bench run --server $server --size "$size" "${arguments[@]}" "$@"
}

# Connections begin as the link is; those of most peers are made by each run anyway.
ports() { ss -Htn state established dport = :7070 | awk '{ print $3 }' | sort; }
reconnected() { # PORTS: of before
	local now
	now=$(ports)
	# The two that each region has at first.
	[[ $(wc -l <<<"$now") == $((2 * ${#chunks[@]})) && ! $(comm -12 <(echo "$1") <(echo "$now")) ]]
}
reconnect() {
	local before chunk
	before=$(ports)
	ss -K dport = :7070 >"$work/.ss"
	wait_for reconnected "$before"
	for chunk in "${chunks[@]}"; do wait_for region_is "$chunk" state active; done
}

peers() {
	local peer chunk which name i
	start peers rmem-bench serve --listen $server --size "$size"
	for peer in tcp uffd-4k uffd-64k uffd-bg anon tmpfs; do
		! wanted $peer || arguments+=(--peer "$peer")
	done
	[[ " ${arguments[*]} " == *" --peer "* ]] || arguments+=(--peer none)
	nbd nbd-c1 0 1 128
	nbd nbd-c4 1 4 4096
	fuse fuse 4 128
	fuse fuse-ra 4 4096

	local exports=()
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

	for which in "${cases[@]}"; do arguments+=(--case "$which"); done
	# Brings all code into memory.
	bench --rounds 1 --no-warm-up >"$work/.warm"
	kill $busy
	wait $busy || true
	busy=''

	for name in "${peer_links[@]}"; do
		use_link "$name"
		reconnect
		note "link $name: $(link "$name")"
		bench --rounds "$rounds" --tsv "/out/$name.tsv"
	done
	use_link rtt0
	for i in 0 1; do [[ ! -b /dev/nbd$i ]] || nbd-client -d /dev/nbd$i >"$work/.nbd" || true; done
	umount "$work"/fuse*.mount 2>"$work/.umount" || true
	# Nothing of it comes into what is measured next.
	for chunk in "${chunks[@]}"; do assert_exit 0 rmemctl detach "$chunk"; done
	for name in "${!pids[@]}"; do
		[[ $name == server ]] || stop "$name"
	done
	[[ ! ${pids[server]:-} ]] || stop server
}

# --- the transports, each with a server and a daemon of its own ----------------------

# What the process has run for so far, ns.
cpu() { # NAME
	cat "/proc/${pids[$1]}"/task/*/schedstat | awk '{ ns += $1 } END { printf "%.0f\n", ns }'
}

# The loopback's route; what it says counts for connections that are made later.
route() { # OPTION...
	ip route replace table local local 127.0.0.1 dev lo proto kernel scope host src 127.0.0.1 "$@"
}

# measured CASE OF-RMEM-BENCH ROUNDS [ARG...]: of the region of that name, a line for /out/LINK.tsv.
measured() {
	local case=$1 measured_rounds=$3
	bench --peer none --region "/dev/rmem-$case" --case "$2" --rounds "$3" "${@:4}" \
		--tsv "$work/$case.tsv" >"$work/$case.txt"
	awk -v OFS='\t' -v peer="$transport_name" -v "case=$case" -v rounds="$measured_rounds" \
		'NR > 1 { $1 = peer; $2 = case; $3 *= rounds; print }' "$work/$case.tsv"
}

# A transport is how the server listens, what the regions' URIs are, and what the daemon is told.
transport_on() { # LINK TRANSPORT FILE
	local link=$1 transport_name=$2 to=$3 kind=${2%%-*} listen=tcp scheme=rmem query='' options=() pages
	case $kind in
	tcp) ;;
	tls) listen=tls scheme=rmems options=(--tls-certificates "$tls" --ktls off) ;;
	ktls) listen=tls scheme=rmems options=(--tls-certificates "$tls" --ktls require) ;;
	quic) listen=quic scheme=rmem+quic query="?tls-certificates=$tls" options=(--tls-certificates "$tls") ;;
	*) fail "there is no transport $kind" ;;
	esac
	[[ ! $transport_name =~ -(bbr|cubic|reno) ]] || options+=(--quic-congestion "${BASH_REMATCH[1]}")
	[[ $transport_name != *-rto* ]] || route rto_min "${transport_name#*-rto}ms"
	use_link "$link"
	start server rmem-server --listen "$listen://127.0.0.1:7070" --state-dir "$work/state" \
		--export "bytes=file://$work/bytes" "${options[@]}"
	[[ $transport_name != *-hedge ]] || options+=(--hedge auto)
	start_rmemd "${options[@]}"
	local uri=$scheme://127.0.0.1/bytes$query
	assert_exit 0 rmemctl attach transport-page "$uri" --read-only --chunk 4KiB
	assert_exit 0 rmemctl attach transport-bulk "$uri" --read-only --chunk 256KiB
	note "transport $transport_name, link $link: $(daemon_says transport-bulk transport)"
	if case_wanted transport-page; then
		pages=$(($(stat -c %s "$work/bytes") >> 18))
		measured transport-page random $(((samples + pages - 1) / pages)) >>"$to"
		note "fetches, hedged: $(daemon_says transport-page store_fetches hedged)"
	fi
	if case_wanted transport-bulk || case_wanted transport-cpu; then
		# Its code is in memory, its connections know their windows.
		measured transport-bulk sequential 1 >"$work/.warm"
		local before=$(($(cpu rmemd) + $(cpu server)))
		measured transport-bulk sequential "$bulks" --no-warm-up >"$work/.bulk"
		local ns=$(($(cpu rmemd) + $(cpu server) - before))
		! case_wanted transport-bulk || cat "$work/.bulk" >>"$to"
		pages=$(($(stat -c %s "$work/bytes") / 4096))
		! case_wanted transport-cpu || awk -v OFS='\t' -v peer="$transport_name" -v pages=$((pages * bulks)) \
			-v ns=$((ns / bulks / pages)) 'BEGIN { print peer, "transport-cpu", pages, ns, ns, ns, "-", "-" }' \
			>>"$to"
	fi
	assert_exit 0 rmemctl detach transport-page
	assert_exit 0 rmemctl detach transport-bulk
	stop rmemd
	stop server
	use_link rtt0
	route
}

transports() {
	local samples=${RMEM_BENCH_SAMPLES:-2048} bulks=${RMEM_BENCH_BULKS:-5} name transport
	# As udev would have loaded it. Else the kernel's TLS calculates AES by tables, while GnuTLS does not.
	modprobe -q aesni_intel || true
	certificates
	rmem-bench make "$work/bytes" --size "$size"
	arguments=()
	# The libraries come into memory off the clock.
	for transport in $transports; do
		samples=1 bulks=1 transport_on rtt0 "$transport" "$work/.warm.tsv"
	done
	if [[ $busy ]]; then
		kill "$busy"
		wait "$busy" || true
	fi
	for name in "${transport_links[@]}"; do
		[[ -e /out/$name.tsv ]] || printf 'peer\tcase\tpages\tmedian_ns\tleast_ns\tmost_ns\tp50_ns\tp99_ns\n' >"/out/$name.tsv"
		for transport in $transports; do transport_on "$name" "$transport" "/out/$name.tsv"; done
	done
}

modprobe -q -a sch_netem nbd fuse tcp_bbr || true
[[ ${RMEM_BENCH_CASES:-} && ! ${cases[*]} ]] || peers
if [[ $transports ]] && { case_wanted transport-page || case_wanted transport-bulk || case_wanted transport-cpu; }; then
	transports
fi
