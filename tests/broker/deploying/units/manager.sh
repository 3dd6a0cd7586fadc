# Runs units under a systemd of their own, `systemd --user`, in a mount namespace and a cgroup of its own:
#   unshare --mount bash manager.sh DIRECTORY LONGSHORE UNITS STEPS
# DIRECTORY is the home directory and everything else, UNITS where the units are, STEPS the script that uses them. What that
# prints is the test's to judge.
set -euo pipefail
directory=$1 longshore=$2 units=$3 steps=$4

if [ -z "${INSIDE-}" ]; then
	# systemd asks whether the machine runs it, and where cgroups (version 2) are.
	mkdir -p /run/systemd
	mount -t tmpfs tmpfs /run/systemd
	mkdir -p /run/systemd/system /run/systemd/inaccessible/dir
	# What it covers with these is not there for a unit; of which kind a file is does not matter here.
	touch /run/systemd/inaccessible/{reg,fifo,sock,chr,blk}
	mount -t cgroup2 "longshore-test-$$" /sys/fs/cgroup
	own=/sys/fs/cgroup/longshore-test-$$
	mkdir "$own"
	trap 'echo $$ >/sys/fs/cgroup/cgroup.procs; find "$own" -depth -type d -exec rmdir {} +' EXIT
	echo $$ >"$own/cgroup.procs"
	INSIDE=yes bash "$0" "$@"
	exit
fi

export HOME=$directory/home XDG_RUNTIME_DIR=$directory/run
mkdir -p "$HOME/.config/systemd/user"
mkdir -m 700 "$XDG_RUNTIME_DIR"
for unit in "$units"/*.service "$units"/*.socket; do
	sed "s|=/usr/bin/longshore |=$longshore |" "$unit" >"$HOME/.config/systemd/user/$(basename "$unit")"
done
# There is no journal.
printf '%s\n' '[Manager]' DefaultStandardOutput=inherit >"$HOME/.config/systemd/user.conf"
/lib/systemd/systemd --user --log-target=console >"$directory/log" 2>&1 &
manager=$!
trap '[ $? = 0 ] || cat "$directory/log"; kill "$manager" 2>/dev/null && wait "$manager" || true' EXIT
for _ in $(seq 100); do
	systemctl --user is-system-running >/dev/null 2>&1 && break
	kill -0 "$manager"
	sleep 0.1
done
# What the manager says of a unit.
state() { systemctl --user show "$1" --property=ActiveState --property=Result --value | paste -sd ' '; }

source "$steps"
