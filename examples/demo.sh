#!/usr/bin/env bash
# Shows Longshore's main job from beginning to end with the hello extension; `make demo` runs it.
# Everything it writes is in a temporary directory, target/ and, on the engine, things that carry the extension's name;
# all but target/ is removed again, however the demo ends. Needs cargo; uses docker where an engine answers.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extension=longshore-demo/hello-extension
reference=$extension:demo
# The compose project is named as Docker Desktop names it.
project=longshore-demo_hello-extension-desktop-extension

scratch=$(mktemp -d "${TMPDIR:-/tmp}/longshore-demo.XXXXXX")
root=$scratch/rootfs
data=$scratch/data
log=$scratch/broker.log
broker_pid=
attached_pid=
has_engine=
is_done=

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
else
	bold='' dim='' plain=''
fi

# Why the next command is run.
step() {
	printf '\n%s%s%s\n' "$bold" "$1" "$plain"
}

remark() {
	printf '%s%s%s\n' "$dim" "$1" "$plain"
}

# Prints a command as it could be typed, with the temporary directory shortened.
show() {
	local word line=''
	for word in "$@"; do
		word=${word//"$scratch"/\$DIR}
		case $word in
		'&') ;;
		'' | *[!-A-Za-z0-9_./:=@,%+\$\{\}]*) word="'$word'" ;;
		esac
		line+=" $word"
	done
	printf '%s$%s%s\n' "$dim" "$line" "$plain"
}

run() {
	show "$@"
	"$@"
}

# Runs a command that is to end with that exit code.
run_to_end_with() {
	local wanted=$1 code=0
	shift
	run "$@" || code=$?
	remark "exit code $code"
	[ "$code" -eq "$wanted" ] || fail "the exit code should have been $wanted"
}

fail() {
	printf 'demo: %s\n' "$1" >&2
	exit 1
}

# Waits until a command succeeds; gives up after 20 seconds.
wait_until() {
	local _
	for _ in $(seq 100); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.2
	done
	"$@" >/dev/null
}

# What the engine has of the demo, one thing a line.
inventory() {
	[ -n "$has_engine" ] || return 0
	local label=label=com.docker.compose.project=$project
	docker container ls --all --filter "$label" --format 'container {{.Names}}'
	docker network ls --filter "$label" --format 'network {{.Name}}'
	docker volume ls --filter "$label" --format 'volume {{.Name}}'
	docker image ls --format 'image {{.Repository}}:{{.Tag}}' "$reference"
}

# Asks a process that this script started to end, and sees to it.
end_process() {
	local pid=$1 _
	[ -n "$pid" ] || return 0
	kill -TERM "$pid" 2>/dev/null || return 0
	for _ in $(seq 75); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.2
	done
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
}

# Removes what the engine still has of the demo: nothing, unless the demo was broken off.
clear_engine() {
	local kind name
	inventory | while read -r kind name; do
		case $kind in
		container) docker container rm --force --volumes "$name" ;;
		*) docker "$kind" rm --force "$name" 2>/dev/null || docker "$kind" rm "$name" ;;
		esac
	done >/dev/null 2>&1 || true
}

clean_up() {
	local code=$?
	trap - EXIT
	if [ -z "$is_done" ] && [ -s "$log" ]; then
		printf '\nthe end of what the broker said:\n' >&2
		tail -n 30 "$log" >&2
	fi
	end_process "$attached_pid"
	end_process "$broker_pid"
	clear_engine
	rm -rf "$scratch"
	exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

build() {
	step 'Build longshore: one binary, the broker and its command line.'
	cd "$repository"
	run cargo build --bin longshore
	local host
	host=$(rustc -vV | sed -n 's/^host: //p')
	PATH=${CARGO_TARGET_DIR:-$repository/target}/$host/debug:$PATH

	step 'Lay out the hello extension: a manifest, a page, a host program, a static backend.'
	run ./examples/hello-extension/build.sh "$root"
}

start_broker() {
	step 'Start a broker of our own, in a temporary directory.'
	remark "DIR=$scratch"
	export LONGSHORE_SOCKET=$scratch/run/longshore.sock
	mkdir -m 700 "$scratch/run" "$data"
	local command=(longshore serve --socket "$LONGSHORE_SOCKET" --data-dir "$data" --runtime-dir "$scratch/run")
	show "${command[@]}" '&'
	"${command[@]}" >"$log" 2>&1 &
	broker_pid=$!
	wait_until longshore info
	run longshore info

	# The docker command has to talk to the engine that the broker talks to.
	local info
	info=$(longshore info --json)
	if [[ $info == *'"reachable":true'* ]] && [[ $info != *'"compose":{"path":""'* ]]; then
		DOCKER_HOST=$(sed -n 's/.*"engine":{"url":"\([^"]*\)".*/\1/p' <<<"$info")
		export DOCKER_HOST
		docker version >/dev/null 2>&1 && has_engine=yes
	fi
	[ -n "$has_engine" ] || unset DOCKER_HOST
}

install_image() {
	step 'Build the image. It is made from scratch: no registry is asked.'
	# The old builder leaves nothing behind once the image is gone; the new one keeps a cache.
	show env DOCKER_BUILDKIT=0 docker build --tag "$reference" "$root"
	DOCKER_BUILDKIT=0 docker build --tag "$reference" "$root" >"$scratch/build.log" 2>&1 ||
		{ cat "$scratch/build.log" >&2 && fail 'the image cannot be built'; }
	tail -n 1 "$scratch/build.log"

	step 'Install it. --yes accepts what it asks for; without it, you would be asked.'
	run longshore install "$reference" --pull never --yes
}

install_directory() {
	step 'No container engine with Compose answers: install from the directory, without containers.'
	run longshore install "$root" --as "$reference" --yes

	step 'Let a local process stand in for the backend, behind the same route.'
	# shellcheck disable=SC2054 # the braces are for longshore
	local command=(longshore dev "$extension" --dir "$root" -- "$root/hello-backend" serve --socket '{socket}' --data
		"$scratch/volume")
	show "${command[@]}" '&'
	"${command[@]}" &
	attached_pid=$!
	wait_until longshore call "$extension" GET /hello
}

use_extension() {
	step 'See what is installed.'
	run longshore ls

	step 'Call its backend: HTTP over its Unix socket, as its page does.'
	run longshore call "$extension" GET '/hello?name=Longshore' --wait 10s
	run longshore call "$extension" POST /echo -i -H 'Content-Type: text/plain' -d 'Ahoy!'
	# The body came back as it was sent: without a line end.
	echo
	run longshore call "$extension" GET /count

	step 'Run its host program: output comes line by line, the exit code is passed on.'
	run_to_end_with 3 longshore exec "$extension" --host -- hello.sh Longshore 3

	step 'Run a command in its backend.'
	if [ -n "$has_engine" ]; then
		run longshore exec "$extension" --backend -- /hello-backend whoami
	else
		run longshore exec "$extension" --backend -- "$root/hello-backend" whoami
	fi

	step 'Show who owns what on the engine.'
	if [ -n "$has_engine" ]; then
		run longshore ps "$extension"
	else
		remark 'There is no engine, and nothing on it to own.'
	fi
}

remove_extension() {
	if [ -n "$attached_pid" ]; then
		step 'End the local process.'
		remark 'as Ctrl-C would'
		end_process "$attached_pid"
		attached_pid=
	fi
	step 'Remove it, with its volume.'
	run longshore rm "$extension" --volumes
	if [ -n "$has_engine" ]; then
		remark 'The image was here before the install, so it stays, and is ours to remove.'
		show docker image rm "$reference"
		docker image rm "$reference" >/dev/null
	fi
}

# Fails unless the engine has of the demo what it had before, and the broker's data directory nothing of it.
show_nothing_is_left() {
	step 'See that nothing is left.'
	run longshore ls
	if [ -n "$has_engine" ]; then
		local after
		after=$(inventory)
		if [ "$after" != "$1" ]; then
			printf 'before:\n%s\nnow:\n%s\n' "$1" "$after" >&2
			fail 'the engine has something of the extension left'
		fi
		remark 'containers, networks, volumes and images of the extension: as before, none'
	fi
	local files
	files=$(find "$data" "$scratch/run" -name '*hello*')
	[ -z "$files" ] || fail "left in the data directory: $files"
	remark 'files of the extension in the data and runtime directories: none'
}

SECONDS=0
build
start_broker
# What an earlier demo may have left, had it been killed.
clear_engine
before=$(inventory)
if [ -n "$has_engine" ]; then
	install_image
else
	install_directory
fi
use_extension
remove_extension
show_nothing_is_left "$before"
step 'Stop the broker.'
end_process "$broker_pid"
broker_pid=
is_done=yes
remark "done in $SECONDS seconds; the temporary directory is removed"
[ -n "$has_engine" ] || remark 'Start a container engine and run it again to see the same with containers.'
