# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# What the end-to-end tests share. A test is a script in this directory that
# sources this file; it runs as root in the VM and passes with status 0, is
# skipped with 4 (skip) and fails with anything else. It may say in a comment
#
#   # timeout: 300                     seconds, instead of 180
#   # timeout: 300, long 3600          a test with a long form (below)
#   # vm: mem=512 scratch=3G smp=1     a VM of its own, of this size
#   # vm: peer=512                     with a second VM beside it, of 512 MiB
#   # vm: icount=1                     one that counts instructions
#   # dmesg: REGEX                     (with a VM of its own) what the kernel says because of it
#
# Two network namespaces stand for two hosts: `srv` (10.77.0.1, fd77::1), where
# rmem-server runs, and `cli` (10.77.0.2, fd77::2), where rmemd runs.
#
#   . "$(dirname "$0")/lib.sh"
#   hosts_up
#   in_srv start server rmem-server --listen tcp://10.77.0.1:7070 --insecure --export e=mem://1MiB
#   in_cli start rmemd rmemd
#   assert_exit 0 in_cli rmemctl attach r rmem://10.77.0.1/e --insecure
#
# Everything started is stopped, and everything attached detached, at the end.

set -eEuo pipefail

SRV4=10.77.0.1 CLI4=10.77.0.2 SRV6=fd77::1 CLI6=fd77::2
export SRV4 CLI4 SRV6 CLI6

test_name=$(basename "$0" .sh)
tests=$(cd "$(dirname "$0")/.." && pwd)
# Scratch space in the VM's memory; tests that need more ask for a disk.
work=$(mktemp -d "/tmp/$test_name.XXXXXX")
declare -A pids=() # name -> pid of what start started
netns=''           # namespace of the in_srv or in_cli at work

# --- saying what happens ----------------------------------------------------

note() { echo "# $*"; }

# Also from where wait_for has nothing printed.
exec {loud}>&2
say_where() { # MESSAGE
	local i
	{
		echo "FAIL: $1"
		for ((i = 2; i < ${#FUNCNAME[@]}; i++)); do
			echo "    at ${BASH_SOURCE[i]##*/}:${BASH_LINENO[i - 1]} in ${FUNCNAME[i]}"
		done
	} >&$loud
}

fail() {
	say_where "$*"
	trap - ERR
	exit 1
}

# What set -e ends a test for; a subshell's status is told by whoever asks for it.
trap '((BASH_SUBSHELL)) || say_where "line $LINENO: status $? of: $BASH_COMMAND"' ERR

skip() {
	echo "SKIP: $*"
	exit 4
}

# --- assertions: what was expected, what was seen ---------------------------

assert_eq() { # EXPECTED SEEN [WHAT]
	[[ $1 == "$2" ]] || fail "${3:-value}: expected '$1', saw '$2'"
}

assert_match() { # REGEX SEEN [WHAT]
	[[ $2 =~ $1 ]] || fail "${3:-text}: expected a match of '$1', saw '$2'"
}

assert_le() { # SEEN LIMIT [WHAT]
	(($1 <= $2)) || fail "${3:-number}: expected at most $2, saw $1"
}

assert_ge() { # SEEN LIMIT [WHAT]
	(($1 >= $2)) || fail "${3:-number}: expected at least $2, saw $1"
}

# assert_exit CODE COMMAND... : the command's output stays in $out and $err.
assert_exit() {
	local want=$1 got=0
	shift
	"$@" >"$work/.out" 2>"$work/.err" || got=$?
	out=$(<"$work/.out") err=$(<"$work/.err")
	((got == want)) || fail "'$*': expected exit $want, saw $got; stdout '$out', stderr '$err'"
}
out='' err=''

# Seconds that nobody sets: bash's SECONDS jump with the wall clock, as that of a nemesis may.
uptime_is() { # VARIABLE
	local seconds
	read -r seconds _ </proc/uptime
	printf -v "$1" %s "${seconds%.*}"
}

# wait_for [-t SECONDS] CONDITION-COMMAND... : polls. A minute by default: what comes
# true does so at once, but for a host that has others to serve.
wait_for() {
	local limit=60 begun now tenths=1
	if [[ $1 == -t ]]; then
		limit=$2
		shift 2
	fi
	uptime_is begun
	until "$@" >/dev/null 2>&1; do
		uptime_is now
		((now < begun + limit * ${RMEM_TIMEOUT_SCALE:-1})) || fail "'$*' did not come true in $limit s"
		# To look costs more than most of what is waited for.
		sleep "0.$((tenths < 4 ? tenths++ : tenths))"
	done
}

# at_least NUMBER COMMAND... : for wait_for.
at_least() {
	local least=$1
	shift
	(($("$@") >= least))
}

# --- two hosts --------------------------------------------------------------

hosts_up() {
	hosts_down # a test that was killed may have left them
	ip netns add srv
	ip netns add cli
	ip link add srv0 netns srv type veth peer name cli0 netns cli
	ip -n srv addr add $SRV4/24 dev srv0
	ip -n srv addr add $SRV6/64 dev srv0 nodad
	ip -n cli addr add $CLI4/24 dev cli0
	ip -n cli addr add $CLI6/64 dev cli0 nodad
	local ns
	for ns in srv cli; do
		ip -n $ns link set lo up
		ip -n $ns link set ${ns}0 up
	done
	wait_for in_cli ping -c 1 -W 1 $SRV4
}

hosts_down() {
	ip netns del srv 2>/dev/null || true
	ip netns del cli 2>/dev/null || true
}

# The link between the hosts, as a cable that is pulled. Once it is back, it
# takes the kernel a moment to see the carrier and to find the neighbour.
link_down() { ip -n srv link set srv0 down; }
link_up() {
	ip -n srv link set srv0 up
	wait_for in_cli ping -c 1 -W 1 $SRV4
}

# in_srv COMMAND..., in_cli COMMAND... : a program, `start` or `capture`.
#
# nsenter rather than ip netns exec: that one gives the command a mount
# namespace of its own, where --bind would be invisible to all others.
in_ns() {
	local netns=$1
	shift
	if [[ $1 == start || $1 == capture ]]; then
		"$@"
	else
		nsenter --net="/run/netns/$netns" "$@"
	fi
}
in_srv() { in_ns srv "$@"; }
in_cli() { in_ns cli "$@"; }

# --- programs in the background ---------------------------------------------

# start NAME COMMAND... : returns when the command has printed "ready". Its
# output goes to $work/NAME.log, its pid to ${pids[NAME]}.
start() {
	local name=$1 log=$work/$1.log begun now
	shift
	[[ ! ${pids[$name]:-} ]] || fail "$name runs already"
	: >>"$log"
	local before
	before=$(grep -c '^ready$' "$log" || true)
	# exec, so that the pid is the program's and not a shell's.
	(exec ${netns:+nsenter --net="/run/netns/$netns"} "$@") >>"$log" 2>&1 </dev/null &
	pids[$name]=$!
	uptime_is begun
	until (($(grep -c '^ready$' "$log" || true) > before)); do
		kill -0 "${pids[$name]}" 2>/dev/null || fail "$name died before it was ready: $(tail -n 5 "$log")"
		uptime_is now
		((now < begun + 60 * ${RMEM_TIMEOUT_SCALE:-1})) || fail "$name was not ready in time: $(tail -n 5 "$log")"
		sleep 0.05
	done
}

# stop NAME [SIGNAL]: ends it, waits, and leaves its status in $status.
stop() {
	local name=$1 pid=${pids[$1]:-}
	[[ $pid ]] || fail "$name does not run"
	unset "pids[$name]"
	kill -"${2:-TERM}" "$pid" 2>/dev/null || true
	status=0
	wait "$pid" 2>/dev/null || status=$?
}
# shellcheck disable=SC2034  # for the tests
status=0

alive() { [[ ${pids[$1]:-} ]] && kill -0 "${pids[$1]}" 2>/dev/null; }

# Nobody answers, and the kernel is not told. With rmemd stopped alone, who misses a page
# would ask the server, and take the answer, by himself.
silence() { kill -STOP "${pids[rmemd]}" "${pids[server]}"; }
silence_ends() { kill -CONT "${pids[server]}" "${pids[rmemd]}"; }

# --- memory cgroups ---------------------------------------------------------

# group_make NAME [LIMIT-IN-BYTES]: without what an earlier test left there.
group_make() {
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	rmdir "/sys/fs/cgroup/$1" 2>/dev/null || true
	mkdir "/sys/fs/cgroup/$1"
	echo "${2:-max}" >"/sys/fs/cgroup/$1/memory.max"
}

# "${in_group[@]}" NAME COMMAND... : words, so that start takes them, too.
# shellcheck disable=SC2016,SC2034  # for that shell; for the tests
in_group=(/bin/sh -c 'echo $$ >"/sys/fs/cgroup/$0/cgroup.procs" && exec "$@"')

# capture FILE: every packet that passes, until `stop capture`.
capture() {
	start capture /usr/bin/python3 -c '
import socket, sys
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
packets.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
print("ready", flush=True)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.write(packets.recv(70000))' "$1"
}

# --- chance, repeatable -----------------------------------------------------

# RMEM_SEED=N repeats a run; random MAX gives 0..MAX-1.
RMEM_SEED=${RMEM_SEED:-$((SRANDOM % 1000000))}
export RMEM_SEED
RANDOM=$((RMEM_SEED % 32768))
note "RMEM_SEED=$RMEM_SEED"

# Not in a subshell: $(...) would draw the same number again and again.
random() { # VARIABLE MAX
	printf -v "$1" %d $(((RANDOM << 15 | RANDOM) % $2))
}

# --- how much of it ----------------------------------------------------------

# `make test` runs a sample of what `make check-long` runs in full (RMEM_LONG):
# long_or LONG SHORT says how many, how long or how large.
long_or() {
	if [[ ${RMEM_LONG:-} ]]; then
		echo "$1"
	else
		echo "$2"
	fi
}

# --- the other VM ------------------------------------------------------------

# Of tests with `# vm: peer=MB`: 10.78.0.2, with a disk at /scratch. Its
# address takes the place of that of the namespace.
peer_up() {
	SRV4=10.78.0.2
	"$tests/vm/peer.py" wait
}
on_peer() { "$tests/vm/peer.py" run "$@"; }

# As the power fails: what its disk was not told to keep is gone.
peer_reset() {
	"$tests/vm/peer.py" reset
	"$tests/vm/peer.py" wait
}

# peer_server NAME=STORE... : rmem-server there.
peer_server() {
	local args
	mapfile -t args < <(export_args "$@")
	# shellcheck disable=SC2016  # for the peer's shell
	on_peer bash -c '
		setsid rmem-server "$@" </dev/null >/run/server.log 2>&1 &
		until grep -q "^ready$" /run/server.log; do
			kill -0 $! || { cat /run/server.log; exit 1; }
			sleep 0.05
		done' server --listen "tcp://$SRV4:7070" --insecure --state-dir /scratch/state "${args[@]}"
}

# --- transports --------------------------------------------------------------

# What carries the regions of `attach` from `start_server`: tcp, quic, or tls (by the kernel,
# where it can) and tls-user. RMEM_TRANSPORT=tls runs any test that uses these over TLS.
transport=${RMEM_TRANSPORT:-tcp}
case $transport in
tcp) listen=tcp scheme=rmem over=(--insecure) ;;
tls*) listen=tls scheme=rmems over=() ;;
quic) listen=quic scheme=rmem+quic over=() ;;
*) echo "RMEM_TRANSPORT: $transport" >&2 && exit 2 ;;
esac

# certificate SIDE LINE... : SIDE-key.pem and SIDE-cert.pem in $tls, a directory with the
# authority's; LINEs as certtool's templates have them.
certificate() {
	local side=$1
	shift
	{
		certtool --generate-privkey --key-type=ecdsa --curve=secp256r1 --outfile "$tls/$side-key.pem"
		chmod 0600 "$tls/$side-key.pem"
		printf '%s\n' "$@" "tls_www_$side" signing_key >"$tls/template"
		certtool --generate-certificate --template "$tls/template" --load-privkey "$tls/$side-key.pem" \
			--load-ca-certificate "$tls/ca-cert.pem" --load-ca-privkey "$tls/ca-key.pem" \
			--outfile "$tls/$side-cert.pem"
	} 2>"$work/certtool.out" || fail "certtool: $(<"$work/certtool.out")"
}

# Certificates of an authority of our own, for a server at any of the addresses here and a
# client called client.example, in $tls.
certificates() {
	tls=$work/tls
	[[ ! -e $tls ]] || return 0
	mkdir "$tls"
	{
		certtool --generate-privkey --key-type=ecdsa --curve=secp256r1 --outfile "$tls/ca-key.pem"
		printf '%s\n' 'cn = "rmem test authority"' ca cert_signing_key crl_signing_key >"$tls/template"
		certtool --generate-self-signed --template "$tls/template" --load-privkey "$tls/ca-key.pem" \
			--outfile "$tls/ca-cert.pem"
	} 2>"$work/certtool.out" || fail "certtool: $(<"$work/certtool.out")"
	certificate server 'cn = "server.example"' "ip_address = $SRV4" "ip_address = $SRV6" \
		"ip_address = 127.0.0.1" "dns_name = localhost"
	certificate client 'cn = "client.example"' 'dns_name = "client.example"'
}
tls=''

# --- server, daemon, regions ------------------------------------------------

# What a server knows beyond its own life.
export_args() { # NAME=STORE...
	local e
	for e in "$@"; do
		printf '%s\n' --export "$e"
	done
}

# start_server NAME=STORE... : on the host srv, at its IPv4 address.
start_server() {
	local args
	mapfile -t args < <(export_args "$@")
	[[ $transport == tcp ]] || args+=("${tls_args[@]}")
	in_srv start server rmem-server --listen "$listen://$SRV4:7070" --insecure \
		--state-dir "$work/state" "${args[@]}"
}

# start_rmemd [ARG...]: on the host cli, if there are hosts.
start_rmemd() {
	[[ $transport == tcp ]] || set -- "${tls_args[@]}" "$@"
	if [[ -e /run/netns/cli ]]; then
		in_cli start rmemd rmemd "$@"
	else
		start rmemd rmemd "$@"
	fi
}

# attach NAME [OPTION...]: the export of that name as a region of that name.
attach() {
	local name=$1
	shift
	assert_exit 0 rmemctl attach "$name" "$scheme://$SRV4/$name" "${over[@]}" "$@"
}

# region NAME FIELD: from status --json, FIELD as "dirty_bytes" or "demand".
region() {
	local json
	json=$(rmemctl status "$1" --json) || return
	[[ $json =~ \"$2\":(\"([^\"]*)\"|[^],}]*) ]] || fail "no $2 in $json"
	echo "${BASH_REMATCH[2]:-${BASH_REMATCH[1]#\"\"}}"
}

# region_is NAME FIELD VALUE, for wait_for.
region_is() { [[ $(region "$1" "$2") == "$3" ]]; }

# unsafe NAME: bytes that are written and not durable. The kernel moves them between
# "dirty" and "writeback" whenever it likes, and a page written while it is pushed is
# in both, so it takes one look at the two of them.
unsafe() {
	local json
	json=$(rmemctl status "$1" --json) || return
	[[ $json =~ \"dirty_bytes\":([0-9]+),\"writeback_bytes\":([0-9]+), ]] || fail "no bytes in $json"
	echo $((BASH_REMATCH[1] + BASH_REMATCH[2]))
}

# is_clean NAME, for wait_for: everything written is durable, says the kernel.
is_clean() { [[ $(unsafe "$1") == 0 ]]; }
assert_clean() { is_clean "$1" || fail "$1 is not clean: $(rmemctl status "$1" --json)"; }

# daemon_says NAME FIELD...: what rmemd's socket says of a region.
daemon_says() {
	/usr/bin/python3 - "$@" <<-'PYTHON'
		import json, socket, sys
		s = socket.socket(socket.AF_UNIX)
		s.connect("/run/rmem/rmemd.sock")
		s.sendall(b'{"verb":"status"}\n')
		regions = json.loads(s.makefile().readline())["regions"]
		region = next(r for r in regions if r["name"] == sys.argv[1])
		print(*(region[field] for field in sys.argv[2:]))
	PYTHON
}

# demand_fetches NAME: what rmemd has fetched because somebody waited. (How often
# somebody had to wait for what was under way depends on the speed of both.)
demand_fetches() {
	local all ahead
	read -r all ahead < <(daemon_says "$1" store_fetches store_prefetches)
	echo $((all - ahead))
}

# no_flusher: until the test ends, the kernel pushes only what is too much. Else it does
# so when pages are old, and five seconds after the first write to a region that has not
# pushed before, whose share of what may be dirty is still nothing.
no_flusher() {
	flusher_was=$(</proc/sys/vm/dirty_writeback_centisecs)
	echo 360000 >/proc/sys/vm/dirty_writeback_centisecs
}
flusher_was=''

# assert_error CODE REGEX COMMAND... : a failure that says on stderr, and only
# there, what and why (REGEX) and what to do next.
assert_error() {
	local want=$1 regex=$2
	shift 2
	assert_exit "$want" "$@"
	assert_eq '' "$out" "stdout of '$*'"
	assert_match "$regex" "$err" "stderr of '$*'"
	assert_match $'\nrmem[a-z-]*: next: .|^rmem[a-z-]*: next: .' "$err" "next step of '$*'"
}

# --- the end ----------------------------------------------------------------

end_by_force() { # NAME
	kill -TERM "${pids[$1]}" 2>/dev/null
	kill -CONT "${pids[$1]}" 2>/dev/null
	timeout 10 tail --pid="${pids[$1]}" -f /dev/null || kill -KILL "${pids[$1]}" 2>/dev/null
	unset "pids[$1]"
}

cleanup() {
	local code=$? name
	set +e
	trap - EXIT ERR
	if ((code != 0 && code != 4)); then
		{
			echo "--- status"
			timeout 10 rmemctl status --json
			cat /sys/kernel/debug/rmem/regions
			for name in "$work"/*.log; do
				[[ -e $name ]] || continue
				echo "--- ${name##*/}"
				tail -n 60 "$name"
			done
		} >&2
	fi
	declare -F on_exit >/dev/null && on_exit
	[[ ! $flusher_was ]] || echo "$flusher_was" >/proc/sys/vm/dirty_writeback_centisecs
	# Those that use regions, then the regions, then those that serve them.
	for name in "${!pids[@]}"; do
		[[ $name == rmemd* || $name == server* ]] || end_by_force "$name"
	done
	for name in /dev/rmem-*; do
		[[ -e $name ]] || continue
		name=${name#/dev/rmem-}
		alive rmemd && timeout 10 rmemctl detach "$name" >/dev/null 2>&1 && continue
		timeout 10 rmem-load unmake "$name"
	done
	for name in "${!pids[@]}"; do
		end_by_force "$name"
	done
	hosts_down
	cd /
	rm -rf "$work"
	exit "$code"
}
trap cleanup EXIT
# As a timeout does: what was it that took so long?
told_to_end() { # COMMAND
	say_where "told to end, as its time is over, in: $1"
	exit 143
}
trap 'told_to_end "$BASH_COMMAND"' TERM INT

cd "$work"
if [[ $transport != tcp ]]; then
	certificates
	tls_args=(--tls-certificates "$tls")
	[[ $transport != tls-user ]] || tls_args+=(--ktls off)
fi
