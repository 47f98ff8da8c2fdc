#!/bin/bash
# SPDX-License-Identifier: MIT
# timeout: 300
#
# A region over TLS. By the kernel: the module receives and sends plain bytes, and none of
# them is in what goes over the wire; without the kernel's TLS it goes on in user space, or
# not at all where that was asked for. With certificates or a shared key; who is not the one
# that was expected is refused, and why is said, on both sides.
. "$(dirname "$0")/lib.sh"

chunk=$((64 << 10))
size=$((16 * chunk + 1234))
marker=ThisIsTheMarkerThatNobodyShallRead
rmem-load make "$work/file" $size 7

received() { sed -n "s/^$1 id=.* received=\([0-9]*\).*/\1/p" /sys/kernel/debug/rmem/regions; }
sent() { sed -n "s/^$1 id=.* sent=\([0-9]*\).*/\1/p" /sys/kernel/debug/rmem/regions; }
# write NAME: the marker, where the file will have it, and back from there.
write() {
	printf %s "$marker" | dd of="/dev/rmem-$1" bs=64 seek=3 conv=notrunc status=none
	assert_exit 0 rmemctl sync "$1"
	assert_eq "$marker" "$(dd if="$work/file" bs=64 skip=3 count=1 status=none | head -c ${#marker})" "the marker at the server"
	assert_exit 0 rmemctl drop "$1"
	cmp "$work/file" "/run/rmem/regions/$1"
}
refused() { # CODE REGEX-HERE REGEX-THERE [URI]
	: >"$work/server.log"
	assert_error "$1" "$2" rmemctl attach no "${4:-rmems://localhost/file}" --read-only
	[[ ! $3 ]] || grep -qE "$3" "$work/server.log" || fail "the server does not say '$3': $(<"$work/server.log")"
}
serve() { # ARG...
	start server rmem-server --state-dir "$work/state" --listen tls://127.0.0.1:7070 \
		--listen tcp://127.0.0.1:7071 --export "file=file://$work/file" "$@"
}
kernel_has_tls() { [[ -e /sys/module/tls ]]; }

certificates
psk=$work/keys
printf 'alice:00112233445566778899aabbccddeeff\n' >"$psk"
chmod 0600 "$psk"

note "by the kernel"
serve --tls-certificates "$tls"
start rmemd rmemd --tls-certificates "$tls"
capture "$work/packets"
assert_exit 0 rmemctl attach file rmems://localhost/file --chunk 64KiB --push-interval 1h
assert_eq ktls "$(daemon_says file transport)" "transport"
kernel_has_tls || fail "no module tls"
cmp "$work/file" /run/rmem/regions/file
assert_ge "$(received file)" $((size - 2 * chunk)) "received by the module"
write file
rmem-load write /dev/rmem-file 3
assert_exit 0 rmemctl sync file
assert_ge "$(sent file)" 1 "sent by the module"
rmem-load make "$work/want" $size 3
cmp "$work/want" "$work/file"
write file
assert_eq 0 "$(region file errors)" errors
assert_exit 0 rmemctl detach file
stop capture
assert_ge "$(stat -c %s "$work/packets")" $((3 * size)) "bytes captured"
assert_exit 1 grep -qa $marker "$work/packets"

note "in clear, to see that the marker would be seen"
capture "$work/packets"
assert_exit 0 rmemctl attach clear rmem://127.0.0.1:7071/file --chunk 64KiB
write clear
assert_exit 0 rmemctl detach clear
stop capture
assert_exit 0 grep -qa $marker "$work/packets"

note "certificates that are renewed while it runs, and others"
assert_exit 0 rmemctl attach file rmems://localhost/file --chunk 64KiB --read-only
certificate server 'cn = "server.example"' 'dns_name = other.example'
refused 4 'localhost.*name.*not match' 'has refused us'
assert_exit 0 rmemctl attach other 'rmems://127.0.0.1/file?tls-hostname=other.example' --read-only
assert_exit 0 rmemctl detach other
certificate server 'cn = "server.example"' 'dns_name = localhost' 'activation_date = "2020-01-01 00:00:00"' \
	'expiration_date = "2020-02-01 00:00:00"'
refused 4 'expired' 'has refused us'
certificate server 'cn = "server.example"' 'dns_name = localhost'
assert_exit 0 rmemctl attach no rmems://localhost/file --read-only
assert_exit 0 rmemctl detach no
mkdir "$work/mine"
cp "$tls"/* "$work/mine"
mv "$tls" "$work/theirs"
certificates # of another authority of that name
refused 4 'issuer is unknown' '' "rmems://localhost/file?tls-certificates=$work/mine"
rm -r "$tls"
mv "$work/theirs" "$tls"
{
	certtool --generate-crl --load-ca-privkey "$tls/ca-key.pem" --load-ca-certificate "$tls/ca-cert.pem" \
		--load-certificate "$tls/client-cert.pem" --template <(printf '%s\n' 'crl_next_update = 10' 'crl_number = 1') \
		--outfile "$tls/ca-crl.pem"
} 2>"$work/certtool.out" || fail "certtool: $(<"$work/certtool.out")"
refused 4 'refused us' 'revoked'
rm "$tls/ca-crl.pem"
chmod 0644 "$tls/client-key.pem"
refused 4 'client-key.pem.*others' ''
chmod 0600 "$tls/client-key.pem"
cmp "$work/file" /run/rmem/regions/file # all that while it was attached
assert_exit 0 rmemctl detach file

note "who may"
stop server
serve --tls-certificates "$tls" --allow file=cn:somebody.else
refused 4 'not for this peer.*client.example' 'refused.*file.*client.example'
stop server
serve --tls-certificates "$tls" --allow file=cn:somebody.else --allow file=dns:client.example,ro
assert_error 4 'read-only' rmemctl attach no rmems://localhost/file
assert_exit 0 rmemctl attach no rmems://localhost/file --read-only
cmp "$work/file" /run/rmem/regions/no
assert_exit 0 rmemctl detach no

note "who speaks something else"
: >"$work/server.log"
assert_error 1 'another protocol|does not speak' rmemctl attach no rmem://127.0.0.1:7070/file --read-only
assert_error 1 'does not speak TLS' rmemctl attach no rmems://127.0.0.1:7071/file --read-only

note "in user space, when the kernel has no TLS"
stop rmemd
stop server
: >"$work/no-modules"
modprobe -r tls
modprobe=$(readlink -f /sbin/modprobe)
on_exit() { ! mountpoint -q "$modprobe" || umount "$modprobe"; }
mount --bind "$work/no-modules" "$modprobe"
serve --tls-certificates "$tls"
start rmemd rmemd --tls-certificates "$tls"
capture "$work/packets"
assert_exit 0 rmemctl attach file rmems://localhost/file --chunk 64KiB --push-interval 1h
assert_eq tls "$(daemon_says file transport)" "transport"
write file
assert_ge "$(daemon_says file tls_user_ms)" 1 "what that costs, in ms"
assert_exit 0 rmemctl detach file
stop capture
assert_ge "$(stat -c %s "$work/packets")" $size "bytes captured"
assert_exit 1 grep -qa $marker "$work/packets"
stop rmemd
start rmemd rmemd --tls-certificates "$tls" --ktls require
refused 1 'in the kernel' ''
umount "$modprobe"
stop rmemd
stop server

note "with a shared key"
serve --tls-psk "$psk" --allow file=psk:alice
start rmemd rmemd --tls-psk "$psk" --ktls require
assert_exit 0 rmemctl attach file rmems://localhost/file --chunk 64KiB
assert_eq ktls "$(daemon_says file transport)" "transport"
write file
assert_exit 0 rmemctl detach file
printf 'alice:ffffffffffffffffffffffffffffffff\n' >"$work/wrong"
chmod 0600 "$work/wrong"
refused 4 'refused us' 'wrong key' "rmems://localhost/file?tls-psk-file=$work/wrong"
refused 4 'refused us' '' "rmems://localhost/file?tls-certificates=$tls" # the server has none
