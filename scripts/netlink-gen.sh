#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Generates the C side of uapi/rmem.yaml with the kernel's own generator, as it
# stands in linux-source (fetched under build/). The results are checked in;
# `--check` only says whether they are what the YAML says.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
source=$top/build/linux-source
out=$(mktemp -d)
# The generator wants the schema beside the spec, and one fixed licence line.
work=$(mktemp -d "$source/Documentation/netlink/specs.XXXXXX")
trap 'rm -rf "$out" "$work"' EXIT
spec=$work/rmem.yaml
# by this file it knows the root of a kernel tree; without it, it searches for ever
touch "$source/MAINTAINERS"
{
	echo '# SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause)'
	tail -n +2 "$top/uapi/rmem.yaml"
} > "$spec"

generate() { # MODE KIND FILE LICENCE-LINE
	local raw=$work/${3##*/}
	timeout 60 /usr/bin/python3 "$source/tools/net/ynl/ynl-gen-c.py" --spec "$spec" --mode "$1" "--$2" -o "$raw"
	mkdir -p "$out/${3%/*}"
	sed -e "1s|.*|$4|" -e 's|^/\*\t.*rmem\.yaml \*/$|/*\tuapi/rmem.yaml */|' "$raw" > "$out/$3"
}
generate uapi header uapi/linux/rmem_netlink.h \
	'/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */'
generate kernel header kmod/netlink_gen.h '/* SPDX-License-Identifier: GPL-2.0-only */'
generate kernel source kmod/netlink_gen.c '// SPDX-License-Identifier: GPL-2.0-only'
# The groups belong to the family, which per-op specs leave to hand-written code.
sed -i -e '/^static const struct genl_multicast_group/,$d' "$out/kmod/netlink_gen.c"
sed -i -e '${/^$/d}' "$out/kmod/netlink_gen.c"

for file in uapi/linux/rmem_netlink.h kmod/netlink_gen.h kmod/netlink_gen.c; do
	if [[ ${1:-} != --check ]]; then
		cp "$out/$file" "$top/$file"
	elif ! diff -u "$top/$file" "$out/$file"; then
		echo "$file is not what uapi/rmem.yaml says: run scripts/netlink-gen.sh" >&2
		exit 1
	fi
done
