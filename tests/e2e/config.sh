#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Both programs by their configuration files: mistakes are told with line and column; on
# SIGHUP exports come and go, rights are given and taken, without a client that has nothing
# to do with it noticing; the rate of an export holds; defaults of regions are rmemd's.
. "$(dirname "$0")/lib.sh"

rate=$((1 << 20)) chunk=$((256 << 10))

# What the server's file says after the options that all have: the exports.
config() {
	{
		printf 'listen = ["tcp://%s"]\ninsecure = true\nstate-dir = "%s"\n' "$SRV4" "$work/state"
		cat
	} >"$work/server.toml"
}
export_of() { # NAME [LINE...]
	printf '[[export]]\nname = "%s"\nstore = "file://%s"\n' "$1" "$work/$1"
	((${#@} == 1)) || printf '%s\n' "${@:2}"
}
logged() { (($(grep -c "$2" "$work/$1.log") > $3)); }
# reload NAME WORDS: until it has logged something new with these.
reload() {
	local before
	before=$(grep -c "$2" "$work/$1.log" || true)
	kill -HUP "${pids[$1]}"
	wait_for logged "$1" "$2" "$before"
}

note "mistakes"
printf '[limits]\nrequests = "many"\n' >"$work/bad.toml"
for arguments in "--check-config" "--listen unix:///x --export a=mem://1MiB"; do
	# shellcheck disable=SC2086  # words
	assert_error 2 "bad.toml:2:12: .limits.requests' has to be a whole number" \
		rmem-server --config "$work/bad.toml" $arguments
done
printf 'socket = "/x"\n  sockte = "/y"\n' >"$work/bad.toml"
assert_error 2 "bad.toml:2:3: .sockte' is no key of this file" rmemd --config "$work/bad.toml" --check-config
assert_error 2 "none.toml: No such file" rmemd --config "$work/none.toml"

rmem-load make "$work/a" $((4 << 20)) 0
rmem-load make "$work/b" $((1 << 20)) 3
rmem-load make "$work/c" $((1 << 20)) 4
rmem-load make "$work/slow" $((24 << 20)) 5
hosts_up
{
	export_of a
	export_of b
} | config
assert_exit 0 rmem-server --config "$work/server.toml" --check-config
in_srv start server rmem-server --config "$work/server.toml"
printf '[region]\nchunk = "64KiB"\nsync-timeout = "60s"\n' >"$work/rmemd.toml"
assert_exit 0 rmemd --config "$work/rmemd.toml" --check-config
start_rmemd --config "$work/rmemd.toml"
attach a --push-interval 300ms
attach b --chunk 128KiB
assert_eq $((64 << 10)) "$(region a chunk_bytes)" "chunk that rmemd's file says"
assert_eq $((128 << 10)) "$(region b chunk_bytes)" "chunk that the command line says"
start load rmem-load run /dev/rmem-a "$work/oracle" 2 2

note "one export comes, one goes, one that is used stays as it is"
{
	export_of a
	export_of c
	export_of slow "read-rate = \"1MiB\""
} | config
reload server 'reloaded .*: 3 exports'
attach c
assert_exit 0 rmem-load check /dev/rmem-c 4
assert_exit 0 rmemctl detach c
# Who has it, keeps it; nobody else gets it.
assert_exit 0 rmem-load rewrite /dev/rmem-b 4
assert_exit 0 rmemctl sync b
assert_exit 0 rmem-load check "$work/b" 4
assert_exit 0 rmemctl detach b
assert_error 3 "no export .b'" rmemctl attach b "rmem://$SRV4/b" --insecure

note "a file that is wrong changes nothing"
cp "$work/server.toml" "$work/good.toml"
echo 'name = "x"' >>"$work/server.toml"
reload server 'nothing is reloaded: .*server.toml:1[0-9]:[0-9]*: '
attach c
assert_exit 0 rmemctl detach c
cp "$work/good.toml" "$work/server.toml"
sed -i 's/^insecure.*/insecure = false/' "$work/server.toml"
reload server ".insecure' changes only when"
alive load || fail "the load ended: $(<"$work/load.log")"

note "rights are taken and given back"
{
	export_of a 'allow = [{identity = "anonymous", access = "read-only"}]'
	export_of c
	export_of slow "read-rate = \"1MiB\""
} | config
reload server 'reloaded .*: 3 exports'
wait_for region_is a state degraded
assert_match "the right to .a' was taken" "$(<"$work/server.log")" "what the server logs"
assert_error 4 "export .a' is read-only for this peer" rmemctl attach a2 "rmem://$SRV4/a" --insecure
assert_exit 0 rmemctl attach a2 "rmem://$SRV4/a" --insecure --read-only
assert_exit 0 rmemctl detach a2
{
	export_of a 'allow = [{identity = "cn:alice", access = "read-write"}]'
	export_of c
	export_of slow "read-rate = \"1MiB\""
} | config
reload server 'reloaded .*: 3 exports'
for name in a nothing; do
	assert_error 4 "there is no export .$name', or it is not for this peer .nobody authenticated.*who may use it" \
		rmemctl attach a2 "rmem://$SRV4/$name" --insecure --read-only
done
{
	export_of a
	export_of slow "read-rate = \"1MiB\""
} | config
reload server 'reloaded .*: 2 exports'
wait_for region_is a state active
before=$(rmem-load progress "$work/oracle")
wait_for at_least $((before + 20)) rmem-load progress "$work/oracle"
stop load
assert_eq 0 "$status" "status of the load"
assert_exit 0 rmemctl sync a
assert_exit 0 rmem-load compare "$work/a" "$work/oracle" exact
# rmemd has tried again and again; it is said once.
assert_le "$(grep -c "access: .*refused: .a' for writing to nobody" "$work/server.log")" 2 "lines about refused access"

note "the rate of an export"
uptime_is begun
attach slow --read-only --pull all
for ((i = 1; i <= 3; i++)); do
	wait_for at_least $((i * rate)) region slow fetched_bytes
	bytes=$(region slow fetched_bytes)
	uptime_is now
	assert_le "$bytes" $(((now - begun + 1) * rate + 4 * chunk)) "bytes after $((now - begun)) s"
done
export_of slow | config
reload server 'reloaded .*: 1 exports'
all_there() { (($(region slow fetched_bytes) == 24 << 20)); }
wait_for all_there

note "defaults of regions"
printf '[region]\nchunk = "4KiB"\n' >"$work/rmemd.toml"
reload rmemd 'reloaded .*rmemd.toml'
assert_exit 0 rmemctl attach slow2 "rmem://$SRV4/slow" --insecure --read-only
assert_eq 4096 "$(region slow2 chunk_bytes)" "chunk"
printf '[region]\nchunk = 1\n' >"$work/rmemd.toml"
reload rmemd 'nothing is reloaded: .*rmemd.toml:2:9: '
for name in slow slow2 a; do
	assert_exit 0 rmemctl detach $name
done
