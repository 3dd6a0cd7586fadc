# Runs the user units under a systemd of their own, `systemd --user`, in a mount namespace and a cgroup of its own:
#   unshare --mount bash user_manager.sh DIRECTORY LONGSHORE UNITS
# DIRECTORY is the home directory and everything else. What it prints is the test's to judge.
set -euo pipefail
directory=$1 longshore=$2 units=$3

if [ -z "${INSIDE-}" ]; then
	# systemd asks whether the machine runs it, and where cgroups (version 2) are.
	mkdir -p /run/systemd
	mount -t tmpfs tmpfs /run/systemd
	mkdir /run/systemd/system
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
for unit in longshore.service longshore.socket; do
	sed "s|=/usr/bin/longshore |=$longshore |" "$units/$unit" >"$HOME/.config/systemd/user/$unit"
done
/lib/systemd/systemd --user --log-target=console >"$directory/log" 2>&1 &
manager=$!
trap 'kill "$manager" 2>/dev/null && wait "$manager" || true' EXIT
for _ in $(seq 100); do
	systemctl --user is-system-running >/dev/null 2>&1 && break
	kill -0 "$manager" || { cat "$directory/log"; exit 1; }
	sleep 0.1
done
state() { systemctl --user show longshore.service --property=ActiveState --property=Result --value | paste -sd ' '; }

systemctl --user start longshore.socket
echo "before: $(state)"
# The first call starts it.
"$longshore" info | sed -n 's/^Host programs: */programs: /p'
# Waits for the manager to have heard that it is ready.
systemctl --user start longshore.service
echo "called: $(state)"
kill -KILL "$(systemctl --user show longshore.service --property=MainPID --value)"
"$longshore" info | sed -n 's/^Extensions: */again: /p'
# The socket, which could start it again, is warned of.
systemctl --user stop longshore.service 2>/dev/null
echo "stopped: $(state)"
systemctl --user stop longshore.socket
[ -e "$XDG_RUNTIME_DIR/longshore/longshore.sock" ] && echo "the socket stays" || echo "the socket is gone"
