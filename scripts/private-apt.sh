# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Sourced: an apt with a configuration, lists and a cache of its own, so that packages can be
# fetched and unpacked without being installed, from the machine's own mirrors and backports.
#
#   apt_dir=... codename=... arch=...    set before
#   apt_update PACKAGE                   asks the mirrors, once; status 1: none that answers has it
#   apt-get "${apt_opts[@]}" ...

: "${apt_dir:?}" "${codename:?}" "${arch:?}"

apt_opts=(
	-o Dir::Etc::SourceList=/dev/null
	-o Dir::Etc::SourceParts="$apt_dir/sources.list.d"
	-o Dir::State="$apt_dir/state"
	-o Dir::State::status="$apt_dir/status"
	-o Dir::Cache="$apt_dir/cache"
	-o APT::Architecture="$arch"
	-o APT::Sandbox::User="$(id -un)"
	-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
	-o Acquire::IndexTargets::deb-src::Sources::DefaultEnabled=false
	-o Acquire::Languages=none
	-o Acquire::Retries=3
)

# The machine's own mirrors (whatever format its source files have), plus
# backports from the mirror that serves the release itself.
write_sources() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	local uri suite origin
	local -A suites=()

	while IFS='|' read -r uri suite origin; do
		[[ $origin == Debian || $origin == '$(ORIGIN)' ]] || continue
		case $suite in
		"$codename") suites[$uri]+=" $codename $codename-backports" ;;
		"$codename-security") suites[$uri]+=" $suite" ;;
		esac
	done < <(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(ORIGIN)' \
		'Created-By: Packages' 'Component: main' | sort -u)
	if ((!${#suites[@]})); then
		suites[http://deb.debian.org/debian]="$codename $codename-backports"
		suites[http://deb.debian.org/debian-security]="$codename-security"
	fi

	mkdir -p "$apt_dir"/{sources.list.d,state/lists/partial,cache/archives/partial}
	: >"$apt_dir/status"
	for uri in "${!suites[@]}"; do
		cat <<-SOURCE
			Types: deb
			URIs: $uri
			Suites:${suites[$uri]/#[! ]/ &}
			Components: main
			Signed-By: $keyring

		SOURCE
	done >"$apt_dir/sources.list.d/rmem.sources"
}

apt_ready='' apt_partial=''
apt_update() { # PACKAGE
	[[ -z $apt_ready ]] || return 0
	command -v apt-get >/dev/null || { echo "no apt-get here" >&2; return 1; }
	write_sources
	# Errors of one source (a release without backports, say) are seen later,
	# where a package is missing; no answer from any is one now.
	# shellcheck disable=SC2034  # for who sources this
	apt-get "${apt_opts[@]}" update -q >&2 || apt_partial=yes
	[[ -n $(apt-cache "${apt_opts[@]}" madison "$1") ]] || return 1
	apt_ready=yes
}
