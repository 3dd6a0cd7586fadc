# shellcheck shell=bash
# Shared by the scripts beside it: messages, root, and apt. Sourced, not run.

export PATH="$PATH:/usr/sbin:/sbin" # a plain user's PATH may lack them

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { say "error: $*" >&2; exit 1; }

# One run at a time: parallel runs would fight over dpkg and over half-made folders.
# The lock is on the script itself, so it leaves no file behind.
one_at_a_time() { exec 9<"$0"; flock 9; }

# Runs a command as root, through sudo where we are not root.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"
	elif command -v sudo >/dev/null; then sudo "$@"
	else die "needs root for: $* (run this as root, or install sudo)"
	fi
}

# apt-get that asks nothing and waits for another apt-get to finish. fd 9 is the lock
# above: services that a package starts must not inherit it.
apt_get() {
	command -v apt-get >/dev/null ||
		die "no apt-get here: only Debian and Ubuntu are set up by this script (wanted: $*)"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
		-o Dpkg::Options::=--force-confold "$@" 9<&- </dev/null
}

# Fetches the package lists, once a run.
apt_lists() {
	[ -z "${apt_lists_done-}" ] || return 0
	apt_get update
	apt_lists_done=1
}

# The version apt would install of a package; empty when it knows none.
apt_candidate() { apt-cache policy "$1" | sed -n 's/^  Candidate: //p' | grep -vx '(none)' || true; }

# Installs packages without starting their services: a policy-rc.d that says no is put
# in place while dpkg runs, unless the machine has one of its own (containers often do).
apt_install() (
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'as_root rm -f "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
		as_root chmod 755 "$policy"
	fi
	say "installing $*"
	log=$(mktemp)
	apt_get install -y --no-install-recommends "$@" >"$log" 2>&1 || {
		cat "$log" >&2
		die "apt-get install $* failed"
	}
	rm -f "$log"
)

# Fetches Debian 13's packages on Debian 12, from the mirrors that this machine uses, with lists and
# cache of our own: the machine's apt never learns of Debian 13, so no later install changes.
# Signatures are checked as ever: Debian 12's keyring holds Debian 13's keys.
download_from_trixie() ( # DIRECTORY PACKAGE...
	into=$1
	shift
	tmp=$(mktemp -d)
	trap 'as_root rm -rf "$tmp"' EXIT
	mkdir -p "$tmp/sources.list.d" "$tmp/lists" "$tmp/cache"
	shopt -s nullglob
	# Only sources of the release itself: its -updates, -security and so on are not
	# needed. The release may go by its name or by its place in the line of releases.
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -f "$file" ] || continue
		sed -nE 's/^(deb[[:space:]]+(\[[^]]*\][[:space:]]+)?[^[:space:]]+[[:space:]]+)(bookworm|oldstable|stable)([[:space:]].*)$/\1trixie\4/p' "$file"
	done >"$tmp/sources.list.d/trixie.list"
	for file in /etc/apt/sources.list.d/*.sources; do
		# One stanza at a time; its Suites line is cut down to the one suite.
		awk 'BEGIN { RS = ""; ORS = "\n\n" }
			/(^|\n)Suites:([^\n]*[ \t])?(bookworm|oldstable|stable)[ \t]*(\n|[ \t]|$)/ {
				sub(/Suites:[^\n]*/, "Suites: trixie"); print }' "$file" \
			>"$tmp/sources.list.d/${file##*/}"
	done
	chmod -R go+rX "$tmp" # sudo's root can read it anyhow; apt's own user must too
	isolated=(
		-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$tmp/sources.list.d"
		-o Dir::State::lists="$tmp/lists" -o Dir::Cache="$tmp/cache"
		-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
		-o APT::Sandbox::User=root
	)
	say "fetching Debian 13's $*"
	cd "$into"
	apt_get "${isolated[@]}" update
	apt_get "${isolated[@]}" download "$@"
)
