#!/bin/sh
# Builds the hello extension: compiles its backend and lays out a directory that is the root of its image.
# Needs rustc, and docker only for --image. Nothing is downloaded.
#
# Usage: build.sh [DIR] [--image REF]
#   DIR          where to lay it out; replaced if it is there [default: build/rootfs beside this script]
#   --image REF  build the image from it as well, and give it this name
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$here/build/rootfs
image=

while [ $# -gt 0 ]; do
	case $1 in
	--image)
		image=${2:?--image needs a name}
		shift
		;;
	-*)
		echo "usage: build.sh [DIR] [--image REF]" >&2
		exit 2
		;;
	*) root=$1 ;;
	esac
	shift
done

# Only what an earlier run laid out is removed.
if [ -e "$root" ] && [ ! -e "$root/hello-backend" ] && [ -n "$(ls -A "$root")" ]; then
	echo "build.sh: $root holds something else" >&2
	exit 1
fi
rm -rf "$root"
mkdir -p "$root"

# Static, because an image made from scratch has no C library.
rustc --edition 2024 --crate-name hello_backend -O -C target-feature=+crt-static -C strip=symbols \
	-o "$root/hello-backend" "$here/backend/main.rs"
cp -R "$here/metadata.json" "$here/docker-compose.yaml" "$here/Dockerfile" "$here/icon.svg" "$here/ui" "$here/host" \
	"$root/"
chmod 755 "$root/host/hello.sh" "$root/hello-backend"

if [ -n "$image" ]; then
	docker build --quiet --tag "$image" "$root"
fi
echo "laid out in $root"
