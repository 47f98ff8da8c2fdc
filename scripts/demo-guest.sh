#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What `make demo` shows, inside the VM: see scripts/demo.sh. Two network
# namespaces stand for two machines, `server` and `client`. Each command is shown
# before it runs, and what is claimed is checked: a claim that does not hold
# ends the demonstration with status 1.
set -euo pipefail

served=/scratch/packages.db     # on the server's disk
mapped=/srv/packages.db         # where the client wants it
logs=/out
bold='' plain=''
if [[ ${RMEM_DEMO_BOLD:-} ]]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi
# No start-up file of the user's (~/.sqliterc) shall meddle.
HOME=$(mktemp -d)
export HOME

# --- showing ----------------------------------------------------------------

step=0
heading() {
	step=$((step + 1))
	printf '\n%s%d. %s%s\n' "$bold" $step "$*" "$plain"
}

say() { printf '   %s\n' "$@"; }

fail() { # WHAT WHY
	printf '\nFAILED: %s\n        %s\n' "$1" "$2"
	local log
	for log in "$logs"/*.log; do
		[[ -s $log ]] || continue
		echo "--- the last lines of ${log##*/}:"
		tail -n 15 "$log"
	done
	exit 1
}

prompt() { printf '   %s%s# %s%s\n' "$bold" "$1" "$2" "$plain"; }

# on MACHINE COMMAND-LINE: shows it, runs it, shows what it says; that stays in
# $said.
said=''
on() {
	local status=0
	prompt "$1" "$2"
	said=$(nsenter --net="/run/netns/$1" bash -c "$2" 2>&1) || status=$?
	[[ ! $said ]] || sed 's/^/   /' <<<"$said"
	((status == 0)) || fail "$2" "it ended with status $status"
}

# daemon MACHINE NAME COMMAND-LINE: in the background, until it says "ready".
declare -A pids=()
daemon() {
	local log=$logs/$2.log end=$((SECONDS + 60))
	prompt "$1" "$3 &"
	nsenter --net="/run/netns/$1" bash -c "exec $3" >"$log" 2>&1 </dev/null &
	pids[$2]=$!
	until grep -q '^ready$' "$log"; do
		kill -0 "${pids[$2]}" 2>/dev/null || fail "$3" "it ended before it was ready"
		((SECONDS < end)) || fail "$3" "it was not ready within a minute"
		sleep 0.1
	done
	say ready
}

finish() { # NAME
	local status=0
	kill -TERM "${pids[$1]}"
	wait "${pids[$1]}" || status=$?
	((status == 0)) || fail "stopping $1" "it ended with status $status"
	unset "pids[$1]"
}

# --- checking ---------------------------------------------------------------

# counter FIELD: of the region, from status --json.
counter() {
	rmemctl status packages --json | /usr/bin/python3 -c \
		'import json, sys; print(json.load(sys.stdin)["regions"][0][sys.argv[1]])' "$1"
}

mib() { awk -v b="$1" 'BEGIN { printf "%.1f MiB", b / 1048576 }'; }
percent() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f %%", 100 * a / b }'; }

says() { # EXPECTED WHAT
	[[ $said == "$1" ]] || fail "$2" "expected '$1', saw '$said'"
}

# --- the two machines -------------------------------------------------------

for m in server client; do
	ip netns add $m
	ip -n $m link set lo up
done
ip link add eth0 netns server type veth peer name eth0 netns client
ip -n server addr add 10.77.0.1/24 dev eth0
ip -n client addr add 10.77.0.2/24 dev eth0
ip -n server link set eth0 up
ip -n client link set eth0 up
size=$(stat -c %s $served)

echo "Two machines, joined by a network: 'server' (10.77.0.1) has a file, 'client' (10.77.0.2)"
echo "uses it. (They are two network namespaces of one VM.)"

heading "The server has a SQLite database and exports it."
on server "ls -lh $served"
daemon server rmem-server \
	"rmem-server --listen tcp://10.77.0.1 --export packages=file://$served --insecure"
say "(--insecure: TCP without encryption, which off loopback has to be asked for.)"

heading "The client attaches it: nothing is copied, the bytes come when they are touched."
daemon client rmemd "rmemd"
on client "rmemctl attach packages rmem://10.77.0.1/packages --bind $mapped --insecure"
on client "ls -lh $mapped /dev/rmem-packages"
on client "rmemctl status"
(($(stat -c %s $mapped) == size)) ||
	fail "the size of $mapped" "the server's file has $size bytes, the client sees $(stat -c %s $mapped)"

heading "The client's sqlite3 maps the file and answers a question by an index."
on client "sqlite3 $mapped 'PRAGMA mmap_size=1073741824' \\
     \"SELECT path, package, version, summary FROM file JOIN package ON name = package
      WHERE path = '/usr/bin/sqlite3'\""
grep -q '^/usr/bin/sqlite3|sqlite3|' <<<"$said" ||
	fail "the answer" "sqlite3 did not say which package /usr/bin/sqlite3 belongs to"
[[ ${said%%$'\n'*} -ge $size ]] || fail "PRAGMA mmap_size" "sqlite3 maps less than the file"
say "(The first line answers the PRAGMA: sqlite3 may map the whole file.)"
on client "rmemctl status"
fetched=$(counter fetched_bytes)
share=$(percent "$fetched" "$size")
say "Fetched for the answer: $(mib "$fetched") of $(mib "$size"), $share."
((fetched > 0)) || fail "fetched bytes" "nothing was fetched, so nothing was shown"
((fetched * 20 < size)) || fail "fetched bytes" "$share of the file is not under 5 %"

heading "The client changes the database: a COMMIT ends when the server has it on its disk."
on client "sqlite3 $mapped \"UPDATE package SET note = 'changed from afar' WHERE name = 'sqlite3'\""
on client "rmemctl status"
say "(sqlite3 calls fsync, which pushes what it wrote. 'sync' does so for all programs at once.)"
on client "rmemctl sync packages"
pushed=$(counter pushed_bytes)
dirty=$(($(counter dirty_bytes) + $(counter writeback_bytes)))
((dirty == 0)) || fail "rmemctl sync" "$dirty bytes are still not durable"
((pushed > 0)) || fail "pushed bytes" "the change was not pushed"
say "Pushed: $((pushed / 1024)) KiB, and nothing is dirty. Only pages that were written travel back."

heading "The server's file is whole, and has the change."
on server "sqlite3 -readonly $served 'PRAGMA integrity_check'"
says ok "the server's file"
on server "sqlite3 -readonly $served \"SELECT name, version, note FROM package WHERE name = 'sqlite3'\""
[[ $said == sqlite3\|*'|changed from afar' ]] ||
	fail "the changed row" "expected a note 'changed from afar' at the server, saw '$said'"

heading "Any program can map it: Python, by the region's own node."
on client "examples/read_region.py /dev/rmem-packages 16777216 1048576"
sum=$(awk '/^sha256/ { print $NF }' <<<"$said")
on server "tail -c +16777217 $served | head -c 1048576 | sha256sum"
[[ $sum && $said == "$sum "* ]] || fail "the bytes that Python read" "the server's have another checksum"

heading "And C, by /dev/rmem and an ioctl: a store to memory becomes a write to the file."
on client "build/examples/attach packages 68 rmem"
say "(Bytes 68 to 71 of a SQLite database are its 'application id'; msync makes them durable.)"
on server "sqlite3 -readonly $served \"SELECT printf('%x', application_id) FROM pragma_application_id\""
says 726d656d "the application id at the server ('rmem' in ASCII)"

heading "The client lets go."
on client "rmemctl status"
fetched=$(counter fetched_bytes)
pushed=$(counter pushed_bytes)
on client "rmemctl detach packages"
[[ ! -e $mapped ]] || fail "rmemctl detach" "$mapped is still there"
finish rmemd
finish rmem-server

cat <<SUMMARY

All of it held:
   - an indexed query on a file of $(mib "$size") fetched $share of it;
   - what sqlite3 and a C program wrote is in the server's file, whose integrity_check says ok;
   - fetched in all: $(mib "$fetched"), pushed in all: $((pushed / 1024)) KiB.
SUMMARY
