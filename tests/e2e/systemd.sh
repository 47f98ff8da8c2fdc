#!/bin/bash
# SPDX-License-Identifier: MIT
#
# timeout: 300
# vm: mem=1024
#
# The units under a real systemd, sandbox and all: a region that a configuration
# file describes is attached, its daemon is replaced when it dies, the server is
# started by the first connection, and all of it goes away in order. systemd runs
# as process 1 of a PID namespace; make install has put the units where it looks.
top=$(cd "$(dirname "$0")/../.." && pwd) # lib.sh goes elsewhere
. "$(dirname "$0")/lib.sh"

# It installs into /usr and takes units away: nothing for a machine that stays.
grep -q rmem_run= /proc/cmdline || skip "not in the VM"
command -v make >/dev/null || skip "no make here"
[[ -x /lib/systemd/systemd ]] || skip "no systemd here"

# -o: what is installed are the programs of the snapshot.
make -C "$top" --no-print-directory -o programs install PREFIX=/usr STRIP= >"$work/install.log" 2>&1 ||
	{ cat "$work/install.log"; fail "make install"; }
systemd-sysusers rmem.conf rmem-server.conf
systemd-tmpfiles --create rmem.conf
getent group rmem >/dev/null || fail "sysusers made no group rmem"
id rmem-server >/dev/null || fail "sysusers made no user rmem-server"
assert_eq "root root 755" "$(stat -c '%U %G %a' /run/rmem)" "/run/rmem"

mkdir -p /etc/rmem/regions /srv /etc/systemd/system/service.d
rmem-load make /srv/data 1048576 7
chmod 0600 /srv/data
chown rmem-server /srv/data
printf '[[export]]\nname = "data"\nstore = "file:///srv/data"\n' >/etc/rmem/rmem-server.toml
printf '%s\n' 'URI=rmem://127.0.0.1/data' 'OPTIONS=--bind /srv/bound --push-interval 1h' \
	>/etc/rmem/regions/my-data.conf
# There is no journal in here.
printf '%s\n' '[Service]' "StandardError=append:$work/units.log" >/etc/systemd/system/service.d/log.conf
# Nothing of what a machine does at boot; the VM has done what is needed.
rm -rf /lib/systemd/system/{sysinit,basic,sockets}.target.wants /etc/systemd/system/*.target.wants
for unit in sysinit basic; do
	printf '%s\n' '[Unit]' 'DefaultDependencies=no' >/etc/systemd/system/$unit.target
done

on_exit() {
	[[ ! ${manager:-} ]] || kill -KILL "$manager" 2>/dev/null
	wait 2>/dev/null
}

mkdir -p /sys/fs/cgroup/test
# shellcheck disable=SC2016  # for the inner shell
unshare --pid --fork --kill-child bash -c '
	echo 1 >/sys/fs/cgroup/test/cgroup.procs
	exec unshare --cgroup --mount --propagation shared bash -c "
		mount -t proc proc /proc
		umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
		mkdir -p /run/systemd
		container=rmem exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=0"
' >"$work/systemd.log" 2>&1 </dev/null &
manager=$!

# In the manager's namespaces: the PID of its process 1, as seen from here.
first() { pgrep -x systemd | head -n 1; }
wait_for first
inside() { nsenter --target "$(first)" --mount --pid --cgroup "$@"; }
wait_for inside systemctl is-active basic.target

note "a region from its configuration file"
assert_exit 0 inside systemctl start rmem-server.socket
[[ $(inside systemctl is-active rmem-server.service) != active ]] || fail "rmem-server runs without having been asked"
inside systemctl start rmem-region@my-data.service ||
	fail "rmem-region@my-data: $(inside systemctl status --no-pager --full rmem-region@my-data rmemd rmem-server 2>&1)"
assert_eq active "$(inside rmemctl status my-data --json | grep -oE '"state":"[a-z]*"' | cut -d'"' -f4)" "state"
assert_eq active "$(inside systemctl is-active rmem-server.service)" "rmem-server, by its socket"
assert_eq rmemfs "$(inside findmnt -n -o SOURCE /run/rmem/regions)" "who mounted rmemfs"
assert_eq "root rmem 660" "$(inside stat -c '%U %G %a' /run/rmem/rmemd.sock)" "rmemd's socket"
assert_eq "$(stat -c %s /srv/data)" "$(inside stat -c %s /srv/bound)" "size of the bound file"
# Through the server, in its sandbox and as its user, to the disk.
inside rmem-load poke /srv/bound 0 11
assert_exit 0 inside rmemctl sync my-data
assert_eq 11 "$(od -An -tu8 -N8 /srv/data | tr -d ' ')" "what the server has"
# udev's part
chgrp rmem /dev/rmem_control
assert_exit 0 inside rmemctl doctor
chmod 0600 /dev/rmem_control
assert_exit 1 inside rmemctl doctor
assert_match 'finding +/dev/rmem_control' "$out" "what doctor finds"
chmod 0660 /dev/rmem_control
grep -q 'warning\|error' "$work/units.log" && fail "complaints: $(cat "$work/units.log")"

note "rmemd is replaced when it dies"
before=$(inside systemctl show -P MainPID rmemd)
inside rmem-load poke /srv/bound 0 12
assert_exit 0 inside systemctl kill --signal=KILL rmemd
# shellcheck disable=SC2317  # called by wait_for
replaced() {
	[[ $(inside systemctl show -P MainPID rmemd) != @(0|"$before") &&
		$(inside systemctl is-active rmemd) == active && $(region my-data state) == active ]]
}
wait_for replaced
assert_eq active "$(inside systemctl is-active rmem-region@my-data)" "the region's unit"
assert_exit 0 inside rmemctl sync my-data
assert_eq 12 "$(od -An -tu8 -N8 /srv/data | tr -d ' ')" "what the server has"

note "a loop that hangs is noticed by the watchdog"
before=$(inside systemctl show -P MainPID rmemd)
inside systemctl kill --signal=STOP rmemd
wait_for replaced

note "files are read again, unless they are wrong"
printf '[[export]]\nname = "more"\nstroe = "mem://1MiB"\n' >>/etc/rmem/rmem-server.toml
assert_exit 1 inside systemctl reload rmem-server
assert_eq active "$(inside systemctl is-active rmem-server)" "rmem-server"
sed -i s/stroe/store/ /etc/rmem/rmem-server.toml
assert_exit 0 inside systemctl reload rmem-server
wait_for grep -q 'reloaded /etc/rmem/rmem-server.toml: 2 exports' "$work/units.log"
printf '[region]\nchunk = "64KiB"\n' >/etc/rmem/rmemd.toml
assert_exit 0 inside systemctl reload rmemd
wait_for grep -q 'reloaded /etc/rmem/rmemd.toml' "$work/units.log"
assert_eq active "$(region my-data state)" "state"

note "stopping"
inside rmem-load poke /srv/bound 0 13
assert_exit 0 inside systemctl stop rmem-region@my-data
assert_eq 13 "$(od -An -tu8 -N8 /srv/data | tr -d ' ')" "what the server has after detach"
[[ ! -e /dev/rmem-my-data && ! -e /srv/bound ]] || fail "the region is still there"
assert_exit 0 inside systemctl stop rmemd
assert_eq rmemfs "$(inside findmnt -n -o SOURCE /run/rmem/regions)" "the mount, which is systemd's"
grep -q unmounting "$work/units.log" && fail "rmemd wanted to unmount it: $(cat "$work/units.log")"
assert_exit 0 inside systemctl stop run-rmem-regions.mount
inside mountpoint -q /run/rmem/regions && fail "rmemfs is still mounted"
assert_exit 0 inside systemctl stop rmem-server.socket rmem-server.service
assert_eq "inactive" "$(inside systemctl is-active rmem-server)" "rmem-server"
