#!/bin/sh
# Greets line by line, so that whoever runs it can see output stream.
# Usage: hello.sh [NAME] [EXIT_CODE]
set -eu

name=${1:-world}
code=${2:-0}

for number in 1 2 3 4 5; do
	echo "$number: hello, $name, from $(uname -s) on the host"
	sleep 0.1
done
echo "hello.sh: done, exit code $code" >&2
exit "$code"
