#!/usr/bin/env bash
# Runs a command with another engine in the place of the machine's own:
#   tests/setup/on-engine.sh podman|docker-26 COMMAND...
# The engine is started for the command and ends with it. Both have their own network,
# mounts, processes and /run, so that the engine listens on /var/run/docker.sock as usual
# and the machine's, if one runs, is neither used nor disturbed. Needs root.
#
# podman    Podman's compatible API, from this distribution's package
# docker-26 Docker Engine 26 with containerd 1.7, unpacked from Debian 13's packages into
#           target/engines; the machine's own stays as it is
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
[ $# -ge 2 ] || die "usage: ${0##*/} podman|docker-26 COMMAND..."
engine=$1
shift
socket=/var/run/docker.sock

# --- packages -------------------------------------------------------------------------

install_podman() {
	local missing=()
	command -v podman >/dev/null || missing+=(podman golang-github-containernetworking-plugin-dnsname)
	# crun 1.8 refuses machines that have cgroup v1 and v2 side by side.
	command -v runc >/dev/null || missing+=(runc)
	command -v curl >/dev/null || missing+=(curl)
	[ ${#missing[@]} -gt 0 ] || return 0
	apt_lists
	apt_install "${missing[@]}"
}

install_docker_26() {
	local dir=$1
	[ -x "$dir/usr/sbin/dockerd" ] && return 0
	command -v runc >/dev/null || die "runc is missing: run tests/setup/engine.sh first"
	grep -qx 'VERSION_CODENAME=bookworm' /etc/os-release ||
		die "Docker 26 is fetched on Debian 12 only; here 'dockerd --version' says: $(dockerd --version 2>&1 || true)"
	rm -rf "$dir" "$dir.partial"
	mkdir -p "$dir.partial/packages"
	# Their runc asks for a later C library; this distribution's does.
	download_from_trixie "$dir.partial/packages" docker.io docker-cli containerd
	local package
	for package in "$dir.partial"/packages/*.deb; do dpkg-deb -x "$package" "$dir.partial"; done
	rm -r "$dir.partial/packages"
	mv "$dir.partial" "$dir"
}

# --- inside the namespaces ------------------------------------------------------------

# Puts the engine's own state on disk of its own and starts it.
start_podman() {
	mkdir -p /var/lib/containers "$1/containers" "$1/networks"
	mount --bind "$1/containers" /var/lib/containers
	# Without the second hierarchy, the first is all that runc and Podman see.
	if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
	cat >"$1/containers.conf" <<-CONF
		[engine]
		runtime = "runc"
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		[network]
		network_config_dir = "$1/networks"
	CONF
	TMPDIR=$1 CONTAINERS_CONF=$1/containers.conf podman system service --time=0 "unix://$socket" >"$1/log" 2>&1 &
}

# Podman has systemd's timers run its health checks, and no systemd can be reached from here.
check_health() {
	local starting id
	while sleep 1; do
		starting=$(podman_api 'containers/json?filters={"health":["starting"]}' | grep -oE '"Id":"[0-9a-f]{64}"') || continue
		for id in $(grep -oE '[0-9a-f]{64}' <<<"$starting"); do podman_api "containers/$id/healthcheck" >/dev/null || true; done
	done
}

podman_api() {
	curl --silent --globoff --max-time 30 --unix-socket "$socket" "http://podman/v4.0.0/libpod/$1"
}

start_docker_26() {
	mkdir -p /var/lib/docker "$1/docker"
	mount --bind "$1/docker" /var/lib/docker
	dockerd --log-level warn >"$1/log" 2>&1 &
}

run_inside() { # STATE COMMAND...
	local state=$1
	shift
	mount -t tmpfs -o mode=755 tmpfs /run
	ip link set lo up
	"start_${engine//-/_}" "$state"
	for _ in $(seq 150); do
		docker version --format '{{.Server.Version}}' >/dev/null 2>&1 && break
		kill -0 $! 2>/dev/null || die "the engine ended: $(tail -n 20 "$state/log")"
		sleep 0.2
	done
	if [ "$engine" = podman ]; then check_health & fi
	# As Docker's is: for root and for members of a group.
	chgrp docker "$socket" && chmod 660 "$socket"
	say "$(docker version --format '{{range .Server.Components}}{{.Name}} {{.Version}}, {{end}}' | tr '\n' ' ')"
	# Whoever tests may ask what engine it is; whoever follows must not see our lock.
	LONGSHORE_TEST_ENGINE=$engine "$@" && return 0
	local code=$?
	cp "$state/log" "/tmp/longshore-$engine.log"
	say "exit code $code; what the engine logged is in /tmp/longshore-$engine.log"
	return "$code"
}

# --- outside --------------------------------------------------------------------------

target=$(realpath -m "${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}")
unset DOCKER_HOST DOCKER_CONTEXT
case $engine in
podman) ;;
docker-26) export PATH="$target/engines/docker-26/usr/bin:$target/engines/docker-26/usr/sbin:$PATH" ;;
*) die "unknown engine $engine: podman or docker-26" ;;
esac
if [ -n "${LONGSHORE_INSIDE-}" ]; then
	state=$LONGSHORE_INSIDE
	unset LONGSHORE_INSIDE
	run_inside "$state" "$@"
	exit
fi
[ "$(id -u)" -eq 0 ] || die "needs root"
(
	one_at_a_time
	case $engine in
	podman) install_podman ;;
	docker-26) install_docker_26 "$target/engines/docker-26" ;;
	esac
)
state=$(mktemp -d /var/tmp/longshore-engine.XXXXXX)
# All that is left in the process namespace ends with its first process, also where we are stopped ourselves.
inside=
trap '[ -z "$inside" ] || { kill "$inside" 2>/dev/null; wait "$inside"; } || true; rm -rf "$state"' EXIT
LONGSHORE_INSIDE=$state unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$engine" "$@" &
inside=$!
wait "$inside"
