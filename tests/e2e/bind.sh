#!/bin/bash
# SPDX-License-Identifier: MIT
#
# attach --bind: the region's file over a path, made where there was none, for
# programs that make files beside it. SQLite is one.
. "$(dirname "$0")/lib.sh"
command -v sqlite3 >/dev/null || skip "no sqlite3"

sqlite3 "$work/served.db" "create table t (n integer primary key, word text);
	with recursive c(n) as (select 1 union all select n + 1 from c where n < 5000)
	insert into t select n, printf('word %d', n) from c"
hosts_up
start_server "db=file://$work/served.db" mem=mem://64KiB
start_rmemd
mkdir "$work/app"
db=$work/app/there.db

attach db --bind "$db"
[[ -f $db ]] || fail "no file at $db"
mountpoint -q "$db" || fail "$db is not a mount"
assert_eq "$(stat -c %s "$work/served.db")" "$(stat -c %s "$db")" "size at $db"
assert_eq "$db" "$(region db bind)" "bind in status"
assert_eq 0 "$(region db users)" "users of a region that is bound"

# The same again: 0, and not a second mount. Elsewhere: 6.
attach db --bind "$db"
assert_eq 1 "$(grep -c " $db " /proc/self/mountinfo)" "mounts at $db"
assert_error 6 db rmemctl attach db "rmem://$SRV4/db" --insecure --bind "$work/app/else"
[[ ! -e $work/app/else ]] || fail "a refused attach left a file"

# A relative path and a symbolic link lead to the same place.
ln -s app "$work/link"
attach db --bind link/there.db

query() { sqlite3 "$db" "pragma mmap_size=67108864; $1" | tail -n 1; }
assert_eq "word 4711" "$(query "select word from t where n = 4711")" "what a query gives"
query "update t set word = 'changed' where n = 4711"
[[ ! -e $db-journal ]] || fail "the journal stayed"
assert_exit 0 rmemctl sync db
assert_eq changed "$(sqlite3 "$work/served.db" "select word from t where n = 4711")" "at the server"
assert_eq ok "$(sqlite3 "$work/served.db" "pragma integrity_check")" "integrity at the server"

# Its daemon may come and go.
stop rmemd KILL
start_rmemd
query "update t set word = 'changed again' where n = 4712"
attach db --bind "$db"
stop rmemd
start_rmemd
mountpoint -q "$db" || fail "$db is not a mount after a restart"
assert_eq "changed again" "$(query "select word from t where n = 4712")" "what a query gives"

assert_exit 0 rmemctl detach db
[[ ! -e $db ]] || fail "detach left $(ls -l "$db")"
assert_eq ok "$(sqlite3 "$work/served.db" "pragma integrity_check")" "integrity at the server"
assert_eq "changed again" "$(sqlite3 "$work/served.db" "select word from t where n = 4712")" "at the server"

# A file that was there comes back.
echo mine >"$work/app/mine"
attach mem --bind "$work/app/mine"
assert_eq 65536 "$(stat -c %s "$work/app/mine")" "size of the bound file"
assert_exit 0 rmemctl detach mem
assert_eq mine "$(<"$work/app/mine")" "the file below"
