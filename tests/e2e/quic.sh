#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300, long 900
#
# A region over QUIC. What goes over the wire tells nothing; who is not the one that was
# expected is refused, and why is said, on both sides. The client's address changes in the
# middle of a pull and of a push, and both go on over the connections that there were. A server
# that is started again says so to those who still call the one before it.
. "$(dirname "$0")/lib.sh"

chunk=$((64 << 10))
size=$((16 * chunk + 1234))
marker=ThisIsTheMarkerThatNobodyShallRead
rmem-load make "$work/file" $size 7

hosts_up
certificates
psk=$work/keys
printf 'alice:00112233445566778899aabbccddeeff\n' >"$psk"
chmod 0600 "$psk"
serve() { # ARG...
	in_srv start server rmem-server --state-dir "$work/state" --listen "quic://$SRV4:7070" "$@"
}
refused() { # CODE REGEX-HERE REGEX-THERE [URI]
	: >"$work/server.log"
	assert_error "$1" "$2" rmemctl attach no "${4:-rmem+quic://$SRV4/file}" --read-only
	[[ ! $3 ]] || grep -qE "$3" "$work/server.log" || fail "the server does not say '$3': $(<"$work/server.log")"
}
# The connections are those that there were.
kept() { ! grep -q 'lost' "$work/rmemd.log" || fail "a connection was lost: $(<"$work/rmemd.log")"; }

note "bytes, both ways, and none of them to be seen"
serve --export "file=file://$work/file" --tls-certificates "$tls" --allow file=authenticated
in_cli start rmemd rmemd --tls-certificates "$tls"
in_srv capture "$work/packets"
assert_exit 0 rmemctl attach file "rmem+quic://$SRV4/file" --chunk 64KiB --push-interval 1h
assert_eq quic "$(daemon_says file transport)" "transport"
cmp "$work/file" /run/rmem/regions/file
printf %s "$marker" | dd of=/dev/rmem-file bs=64 seek=3 conv=notrunc status=none
assert_exit 0 rmemctl sync file
assert_eq "$marker" "$(dd if="$work/file" bs=64 skip=3 count=1 status=none | head -c ${#marker})" "the marker at the server"
rmem-load write /dev/rmem-file 3
assert_exit 0 rmemctl sync file
rmem-load make "$work/want" $size 3
cmp "$work/want" "$work/file"
stop capture
assert_ge "$(stat -c %s "$work/packets")" $((2 * size)) "bytes captured"
assert_exit 1 grep -qa $marker "$work/packets"

note "a server that is started again"
stop server KILL
serve --export "file=file://$work/file" --tls-certificates "$tls" --allow file=authenticated
assert_exit 0 rmemctl drop file
cmp "$work/want" /run/rmem/regions/file
grep -q 'has been started again' "$work/rmemd.log" || fail "the server did not say so: $(<"$work/rmemd.log")"
assert_eq 0 "$(region file errors)" errors
assert_exit 0 rmemctl detach file

note "who is not whom"
cp -r "$tls" "$work/mine"
mv "$tls" "$work/theirs"
certificates # of another authority of that name
refused 4 'issuer is unknown' 'refused us' "rmem+quic://$SRV4/file?tls-certificates=$work/mine"
rm -r "$tls"
mv "$work/theirs" "$tls"
refused 4 'name.*not match' 'refused us' "rmem+quic://$SRV4/file?tls-hostname=other.example"
refused 7 'nobody listens' '' "rmem+quic://$SRV4:7071/file"
stop server
serve --export "file=file://$work/file" --tls-certificates "$tls" --allow file=cn:somebody.else
refused 4 'not for this peer.*client.example' 'refused.*file.*client.example'
stop server
serve --export "file=file://$work/file" --tls-psk "$psk" --allow file=psk:alice
assert_exit 0 rmemctl attach file "rmem+quic://$SRV4/file?tls-psk-file=$psk" --read-only
cmp "$work/want" /run/rmem/regions/file
assert_exit 0 rmemctl detach file
printf 'alice:ffffffffffffffffffffffffffffffff\n' >"$work/wrong"
chmod 0600 "$work/wrong"
refused 4 '' '' "rmem+quic://$SRV4/file?tls-psk-file=$work/wrong"
stop server

# move_to ADDRESS: the client has that one and no other.
move_to() {
	in_cli ip address flush dev cli0 scope global
	in_cli ip address add "$1/24" dev cli0
}
note "another address in the middle of a pull, and of a push"
big=$(($(long_or 128 16) << 20))
rmem-load make "$work/big" $big 5
: >"$work/rmemd.log"
serve --export "big=file://$work/big" --tls-certificates "$tls" --allow big=cn:client.example
in_srv tc qdisc replace dev srv0 root netem rate 200mbit delay 5ms
assert_exit 0 rmemctl attach big "rmem+quic://$SRV4/big" --chunk 256KiB --pull all --push-interval 1h \
	--sync-timeout 300s
wait_for at_least $((2 << 20)) region big resident_bytes
move_to "${CLI4%.*}.77"
(($(region big resident_bytes) < big)) || fail "all was there before the address changed"
wait_for at_least $big region big resident_bytes
kept
cmp "$work/big" /run/rmem/regions/big
rmem-load write /dev/rmem-big 9
in_cli tc qdisc replace dev cli0 root netem rate 100mbit delay 5ms
rmemctl sync big >"$work/push.log" 2>&1 &
push=$!
wait_for at_least 1 region big writeback_bytes
move_to "${CLI4%.*}.78"
kill -0 $push || fail "all was pushed before the address changed"
wait $push || fail "sync: $(<"$work/push.log")"
kept
rmem-load make "$work/want" $big 9
cmp "$work/want" "$work/big"
assert_eq 0 "$(region big errors)" errors
assert_exit 0 rmemctl detach big
