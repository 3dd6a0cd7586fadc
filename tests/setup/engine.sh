#!/usr/bin/env bash
# Brings up what the tests need from the machine: a Docker engine that answers, Compose
# v2, and a few small programs. Safe to run again and again: a second run changes nothing
# and takes about a second.
#
# Installing and starting need root or sudo (Debian or Ubuntu). Tests that need a user
# other than root run their program under setpriv with a bare numeric uid, so no account
# is made here.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
one_at_a_time

socket=/var/run/docker.sock
log=/var/log/longshore-dockerd.log
# The pid of a dockerd that this script started: .ci/run stops that one and no other.
started=/run/longshore-dockerd.pid
# Below, "docker" means the engine on the socket above, whatever the caller's settings.
unset DOCKER_CONTEXT
export DOCKER_HOST="unix://$socket"

engine_version() {
	command -v docker >/dev/null &&
		timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null
}

# --- packages -------------------------------------------------------------------------

# Small programs: a registry to push to, its bcrypt password file, and the one program
# that FROM-scratch test images hold. What checks and makes the things in deploy.
small_programs() {
	local missing=()
	command -v docker-registry >/dev/null || missing+=(docker-registry)
	command -v htpasswd >/dev/null || missing+=(apache2-utils)
	# Only the static build runs in an image that holds nothing else.
	dpkg -s busybox-static >/dev/null 2>&1 || missing+=(busybox-static)
	command -v setpriv >/dev/null || missing+=(util-linux)
	# A server of a test's own, on a port of this machine only. The system's is not started.
	command -v sshd >/dev/null || missing+=(openssh-server)
	# Checks the units in deploy/systemd. It is not started.
	command -v systemd-analyze >/dev/null || missing+=(systemd)
	# Reads what the Debian package is made of (deploy/deb.sh).
	command -v python3 >/dev/null || missing+=(python3)
	[ ${#missing[@]} -gt 0 ] || return 0
	apt_lists
	apt_install "${missing[@]}"
	# Its package also enables a service at boot. The tests start their own registries.
	case " ${missing[*]} " in *' docker-registry '*)
		as_root rm -f /etc/systemd/system/multi-user.target.wants/docker-registry.service ;;
	esac
}

# The engine. Newer Debian has the command-line client in a package of its own.
engine_packages() {
	engine_version >/dev/null && return 0
	local missing=()
	command -v dockerd >/dev/null || missing+=(docker.io)
	if [ ${#missing[@]} -gt 0 ] || ! command -v docker >/dev/null; then
		apt_lists
		if command -v docker >/dev/null; then :
		elif [ -n "$(apt_candidate docker-cli)" ]; then missing+=(docker-cli)
		else missing=(docker.io)
		fi
		apt_install "${missing[@]}"
	fi
}

have_compose() {
	local dir
	for dir in /usr/libexec/docker /usr/lib/docker /usr/local/libexec/docker \
		/usr/local/lib/docker "${DOCKER_CONFIG:-$HOME/.docker}"; do
		[ -x "$dir/cli-plugins/docker-compose" ] && return 0
	done
	# Elsewhere, by the client's own settings. Compose 1 and no Compose both fail this.
	docker compose version >/dev/null 2>&1
}

# Compose v2 under the name that this distribution has for it.
compose_package() {
	have_compose && return 0
	apt_lists
	local version
	version=$(apt_candidate docker-compose)
	if [ -n "$(apt_candidate docker-compose-v2)" ]; then apt_install docker-compose-v2
	elif [ -n "$version" ] && dpkg --compare-versions "$version" ge 2; then apt_install docker-compose
	elif grep -qx 'VERSION_CODENAME=bookworm' /etc/os-release; then compose_from_trixie
	else die "no package of Compose v2 here (docker-compose is ${version:-unknown to apt})"
	fi
	have_compose || die "Compose v2 was installed, but 'docker compose version' fails"
}

# Debian 12 has only Compose 1, but Debian 13's package (one program that asks little of its C library) runs
# on it.
compose_from_trixie() (
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	download_from_trixie "$tmp" docker-compose
	chmod -R go+rX "$tmp" # apt's own user reads it
	apt_install "$tmp"/docker-compose_*.deb
)

# --- the engine -----------------------------------------------------------------------

# Removes a pid file whose process is gone or is by now another program. Left by a
# machine that was stopped hard, it keeps dockerd from starting.
drop_stale_pid() { # FILE NAME
	local pid
	[ -f "$1" ] || return 0
	pid=$(cat "$1")
	[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || as_root rm -f "$1"
}

start_engine() {
	engine_version >/dev/null && return 0
	if [ "$(id -u)" -ne 0 ] && [ -S "$socket" ] && [ ! -w "$socket" ]; then
		die "$socket is not yours to use: join the group docker, or run this as root"
	fi
	if [ -d /run/systemd/system ]; then
		say "starting the docker service"
		as_root systemctl start docker 9<&- || die "systemctl start docker failed: see journalctl -u docker"
	else
		drop_stale_pid /var/run/docker.pid dockerd
		drop_stale_pid /var/run/docker/containerd/containerd.pid containerd
		if [ ! -f /var/run/docker.pid ]; then
			say "starting dockerd (log: $log)"
			# In a session of its own and with no file of ours open, it outlives this script
			# and never holds up who waits for our output to end.
			# shellcheck disable=SC2016 # that shell is to expand them
			as_root bash -c '
				for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || eval "exec $fd>&-"; done
				cd / && exec setsid --fork dockerd --host "$1" </dev/null >"$2" 2>&1' \
				bash "$DOCKER_HOST" "$log"
			ours=1
		fi
	fi
	for _ in $(seq 60); do
		if engine_version >/dev/null; then
			[ -z "${ours-}" ] || as_root cp /var/run/docker.pid "$started"
			return 0
		fi
		sleep 0.5
	done
	as_root tail -n 25 "$log" >&2 2>/dev/null || true
	die "no engine answers on $socket after 30 s; its last log lines, if any, are above"
}

engine_packages
compose_package
small_programs
start_engine
say "engine $(engine_version), compose $(docker compose version --short), all programs there"
