#!/bin/bash
# SPDX-License-Identifier: MIT
#
# SQLite, unchanged, on a region that is bound where it looks for its database:
# with a rollback journal and with a write-ahead log, by read and by mmap, several
# processes at once, and killed in the middle of a transaction.
. "$(dirname "$0")/lib.sh"

# A region does not grow, so the database is made with the free pages it needs.
served=$work/served.db
sqlite3 "$served" "create table t (n integer primary key, word text);
	create table filler (n integer primary key, bytes blob);
	with recursive c(n) as (select 1 union all select n + 1 from c where n < 1000)
	insert into filler select n, randomblob(3000) from c;
	drop table filler"
hosts_up
start_server "db=file://$served"
start_rmemd
mkdir app
db=$work/app/there.db
attach db --bind "$db"

query() { # SQL...: the last line; waits for a lock rather than giving up
	sqlite3 -cmd '.timeout 20000' -cmd 'pragma mmap_size=67108864' "$db" "$@" | tail -n 1
}
insert() { # FIRST LAST
	query "with recursive c(n) as (select $1 union all select n + 1 from c where n < $2)
		insert into t select n, printf('word %d', n) from c; select changes()"
}
# What other processes see, and what the server has, once it is synced. A copy,
# because nobody but rmem-server is to open the store.
check() { # ROWS
	assert_eq "$1" "$(query 'select count(*) from t')" "rows"
	assert_eq 0 "$(query "select count(*) from t where word is not printf('word %d', n)")" "wrong rows"
	assert_exit 0 rmemctl sync db
	cp "$served" at_server.db
	assert_eq ok "$(sqlite3 at_server.db 'pragma integrity_check')" "integrity at the server"
	assert_eq "$1" "$(sqlite3 at_server.db "select count(*) from t where word is printf('word %d', n)")" \
		"rows at the server"
}

for mode in delete persist truncate wal; do
	note "journal_mode $mode"
	assert_eq $mode "$(query "pragma journal_mode=$mode")" "journal mode"
	base=$(query 'select coalesce(max(n), 0) from t')
	assert_eq 500 "$(insert $((base + 1)) $((base + 500)))" "rows inserted"
	# Two writers, one after the other's lock.
	insert $((base + 501)) $((base + 550)) >writer.out & writer=$!
	insert $((base + 551)) $((base + 600)) >/dev/null
	wait $writer
	assert_eq 50 "$(<writer.out)" "rows of the other writer"
	query 'begin; delete from t; rollback' >/dev/null
	[[ $mode != wal ]] || assert_match '^0\|' "$(query 'pragma wal_checkpoint(truncate)')" "checkpoint"
	check $((base + 600))
done

# Killed in the middle of a transaction that had reached the file already.
assert_eq delete "$(query 'pragma journal_mode=delete')" "journal mode"
rows=$(query 'select count(*) from t')
mkfifo feed
sqlite3 "$db" <feed & victim=$!
exec 9>feed
echo "pragma cache_size=2; begin; update t set word = 'half done';" >&9
wait_for test -s "$db-journal"
wait_for at_least 1 unsafe db
kill -KILL $victim
wait $victim || true
exec 9>&-
[[ -s $db-journal ]] || fail "no hot journal: nothing to recover from"
check "$rows"
[[ ! -e $db-journal ]] || fail "the journal stayed"
assert_exit 0 rmemctl detach db
