#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What nobody can mean is refused with 2 before anything happens, and the
# message names it.
. "$(dirname "$0")/lib.sh"

start_rmemd
uri=rmem://127.0.0.1/e

bad() { # REGEX COMMAND...
	assert_error 2 "$@"
}
bad "a/b" rmemctl attach a/b $uri
bad "\.\.\`?'?" rmemctl attach .. $uri
bad "URI" rmemctl attach r
bad "not a region name" rmemctl attach "$(printf 'n%.0s' {1..65})" $uri
bad "not a region name" rmemctl status -- "r s"
bad "not a region name" rmemctl sync ''
bad "chunk" rmemctl attach r $uri --chunk 12KiB
bad "chunk" rmemctl attach r $uri --chunk 2KiB
bad "chunk" rmemctl attach r $uri --chunk 4MiB
bad "chunk" rmemctl attach r $uri --chunk lots
bad "resident-limit" rmemctl attach r $uri --resident-limit 1023KiB
bad "dirty-limit" rmemctl attach r $uri --chunk 2MiB --dirty-limit 15MiB
bad "on-loss" rmemctl attach r $uri --on-loss panic
bad "fault-timeout" rmemctl attach r $uri --fault-timeout 30
bad "sync-timeout" rmemctl attach r $uri --sync-timeout 0s
bad "mode" rmemctl attach r $uri --mode 9
bad "owner" rmemctl attach r $uri --owner nobody-of-that-name
bad "bind" rmemctl attach r $uri --bind /tmp
bad "bind" rmemctl attach r $uri --bind /no/such/directory/file
bad "URI|scheme|ftp" rmemctl attach r ftp://127.0.0.1/e
bad "URI" rmemctl attach r 127.0.0.1/e
bad "export" rmemctl attach r rmem://127.0.0.1
bad "port" rmemctl attach r rmem://127.0.0.1:99999/e
bad "insecure" rmemctl attach r rmem://192.0.2.1/e
bad "no-such-option" rmemctl attach r $uri --no-such-option
bad "frobnicate|subcommand" rmemctl frobnicate

bad "e=" rmem-server --listen tcp://127.0.0.1:7070 --export e=
bad "not of the form" rmem-server --listen tcp://127.0.0.1:7070 --export e
bad "twice" rmem-server --listen tcp://127.0.0.1:7070 --export e=mem://1MiB --export e=mem://1MiB
bad "size|bytes" rmem-server --listen tcp://127.0.0.1:7070 --export e=mem://much
bad "udp" rmem-server --listen udp://127.0.0.1:7070 --export e=mem://1MiB
bad "insecure" rmem-server --listen tcp://0.0.0.0:7070 --export e=mem://1MiB
bad "listen" rmem-server --export e=mem://1MiB
bad "instance" rmemd --instance a/b --socket "$work/other.sock"

# With --json the same as an object on stderr.
assert_exit 2 rmemctl status a/b --json
assert_eq '' "$out" "stdout"
/usr/bin/python3 - "$err" <<'PYTHON' || fail "$err"
import json, sys
document = json.loads(sys.argv[1])
assert document["schema"] == 1
assert set(document["error"]) == {"code", "name", "cause", "hint"}
assert document["error"]["code"] == 2 and document["error"]["name"] == "usage"
assert "a/b" in document["error"]["cause"] and document["error"]["hint"]
PYTHON
assert_exit 0 rmemctl status
assert_eq "no regions" "$out" "status"
