# The broker of several users: its directories are empty, and two users call, who may and who may not.
for place in /run/longshore /var/lib/longshore /etc/longshore; do
	mkdir -p "$place"
	mount -t tmpfs -o mode=0711 tmpfs "$place"
done
printf '%s\n' 'engine = "unix:///none.sock"' '[system]' 'allowed_users = [4711]' >/etc/longshore/config.toml
unit=longshore-users.service
main() { systemctl --user show "$unit" --property=MainPID --value; }
# A manager that is not the system's gives a hardened unit a /run of its own: callers go there.
as() {
	nsenter --mount="/proc/$(main)/ns/mnt" setpriv --reuid "$1" --regid "$1" --clear-groups env -i \
		"$longshore" --socket /run/longshore/longshore.sock "${@:2}" 2>&1
}
systemctl --user start "$unit"
echo "started: $(state "$unit")"
as 4711 info | sed -n 's/^Host programs: */programs: /p'
as 4712 info || echo "another: $?"
kill -KILL "$(main)"
for _ in $(seq 100); do
	as 4711 list >/dev/null && break
	sleep 0.1
done
echo "again: $(state "$unit")"
nsenter --mount="/proc/$(main)/ns/mnt" touch /usr/written 2>&1 || true
systemctl --user stop "$unit"
echo "stopped: $(state "$unit")"
