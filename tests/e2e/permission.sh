#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Who may do what: the region's own owner, group and mode on each frontend, the
# control socket, read-only exports and regions. Refusals are 4 and say why.
. "$(dirname "$0")/lib.sh"

chmod 0755 "$work"
printf 'secret' >"$work/secret"
chmod 0600 "$work/secret"
rmem-load make "$work/file" 65536 1
groupadd -f members
id member >/dev/null 2>&1 || useradd -r -G members,rmem member
id stranger >/dev/null 2>&1 || useradd -r stranger
as() { # USER COMMAND...
	local user=$1
	shift
	setpriv --reuid="$user" --regid="$user" --init-groups "$@"
}

hosts_up
start_server "private=mem://64KiB" "shared=mem://64KiB" "ro=file://$work/file,ro" "mine=mem://64KiB"
start_rmemd

attach private
attach shared --owner root:members --mode 0640
assert_eq "root root 600" "$(stat -c '%U %G %a' /dev/rmem-private)" "node of private"
assert_eq "root members 640" "$(stat -c '%U %G %a' /dev/rmem-shared)" "node of shared"
assert_eq "root members 640" "$(stat -c '%U %G %a' /run/rmem/regions/shared)" "file of shared"
for frontend in /dev/rmem-%s /run/rmem/regions/%s %s@/dev/rmem; do
	# shellcheck disable=SC2059
	private=$(printf "$frontend" private) shared=$(printf "$frontend" shared)
	assert_exit 13 as stranger rmem-load peek "$private" 0
	assert_exit 13 as stranger rmem-load peek "$shared" 0
	assert_exit 0 as member rmem-load peek "$shared" 0
	assert_exit 13 as member rmem-load poke "$shared" 0 1
done
# The region decides, not whoever opens its node up.
chmod 0666 /dev/rmem-private
assert_exit 13 as stranger rmem-load peek /dev/rmem-private 0

# Whom the kernel does not let see a region, rmemctl does not show it.
assert_exit 4 as stranger rmemctl status private
assert_match private "$err" "stderr"
assert_exit 0 as member rmemctl status
assert_match shared "$out" "what a member sees"
[[ $out != *private* ]] || fail "a member sees private: $out"

# The control socket is for root and the group rmem.
assert_error 4 "rmem" as stranger rmemctl sync private
assert_error 4 "rmem" as stranger rmemctl attach mine "rmem://$SRV4/mine" --insecure
assert_exit 0 as member rmemctl attach mine "rmem://$SRV4/mine" --insecure
assert_eq "member member 600" "$(stat -c '%U %G %a' /dev/rmem-mine)" "node of mine"
assert_exit 0 as member rmem-load poke /dev/rmem-mine 0 5 fsync
# But rmemd lends nobody its rights.
assert_error 4 "root" as member rmemctl attach theft "file://$work/secret"
assert_error 4 "root" as member rmemctl attach theft "rmem://$SRV4/ro" --insecure --read-only --owner root
assert_error 4 "root" as member rmemctl attach theft "rmem://$SRV4/ro" --insecure --read-only --bind "$work/there"
assert_exit 0 as member rmemctl detach mine

# Read-only.
assert_error 4 "read-only" rmemctl attach ro "rmem://$SRV4/ro" --insecure
attach ro --read-only --mode 0666
assert_eq true "$(region ro read_only)" "read_only"
for frontend in /dev/rmem-ro /run/rmem/regions/ro ro@/dev/rmem; do
	assert_exit 30 rmem-load poke $frontend 0 1
	assert_exit 0 rmem-load read $frontend 1
done
cmp "$work/file" /dev/rmem-ro
