# The broker of one user: started by a call, killed, started again, stopped.
systemctl --user start longshore.socket
echo "before: $(state longshore.service)"
# The first call starts it.
"$longshore" info | sed -n 's/^Host programs: */programs: /p'
# Waits for the manager to have heard that it is ready.
systemctl --user start longshore.service
echo "called: $(state longshore.service)"
kill -KILL "$(systemctl --user show longshore.service --property=MainPID --value)"
"$longshore" info | sed -n 's/^Extensions: */again: /p'
# The socket, which could start it again, is warned of.
systemctl --user stop longshore.service 2>/dev/null
echo "stopped: $(state longshore.service)"
systemctl --user stop longshore.socket
[ -e "$XDG_RUNTIME_DIR/longshore/longshore.sock" ] && echo "the socket stays" || echo "the socket is gone"
