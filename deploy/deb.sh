#!/usr/bin/env bash
# Builds the Debian package from [package.metadata.deb] in Cargo.toml, with dpkg-deb. cargo-deb reads the same table, and
# takes minutes to install. Needs python3 and dpkg-deb.
#   deploy/deb.sh [--binary FILE] [--out DIR]
#   --binary FILE  the static longshore to package [default: the release build, which is built]
#   --out DIR      where to put the package [default: target/deploy]
set -euo pipefail

cd "$(dirname "$0")/.."
binary=
out=${CARGO_TARGET_DIR:-target}/deploy
while [ $# -gt 0 ]; do
	case $1 in
	--binary) binary=${2:?--binary needs a file} ;;
	--out) out=${2:?--out needs a directory} ;;
	*)
		echo "usage: deb.sh [--binary FILE] [--out DIR]" >&2
		exit 2
		;;
	esac
	shift 2
done
if [ -z "$binary" ]; then
	cargo build --release
	host=$(rustc -vV | sed -n 's/^host: //p')
	binary=${CARGO_TARGET_DIR:-target}/$host/release/longshore
fi
mkdir -p "$out"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

# What the table calls target/deploy/… is made here: the binary and what it prints.
made=$root/made
mkdir "$made" "$root/package"
install -m 755 "$binary" "$made/longshore"
for shell in bash zsh fish; do "$made/longshore" completions "$shell" >"$made/longshore.$shell"; done

python3 - "$made" "$root/package" "$(dpkg --print-architecture)" <<'PYTHON'
import pathlib, shutil, sys, tomllib

made, root, architecture = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
package = tomllib.loads(pathlib.Path("Cargo.toml").read_text())["package"]
deb = package["metadata"]["deb"]
known = {"name", "maintainer", "section", "priority", "depends", "recommends", "extended-description", "conf-files", "assets"}
if unknown := set(deb) - known:
    sys.exit(f"deb.sh: {', '.join(sorted(unknown))}: unknown in [package.metadata.deb]")
size = 0
for source, target, mode in deb["assets"]:
    path = made / pathlib.Path(source).name if source.startswith("target/deploy/") else pathlib.Path(source)
    place = root / target
    place = place / path.name if target.endswith("/") else place
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)
    place.chmod(int(mode, 8))
    size += path.stat().st_size
control = root / "DEBIAN"
control.mkdir()
description = deb["extended-description"].strip().splitlines()
fields = {
    "Package": deb.get("name", package["name"]),
    "Version": package["version"],
    "Architecture": architecture,
    "Maintainer": deb["maintainer"],
    "Installed-Size": str(-(-size // 1024)),
    "Depends": deb.get("depends", ""),
    "Recommends": deb.get("recommends", ""),
    "Section": deb["section"],
    "Priority": deb["priority"],
    "Description": package["description"] + "".join(f"\n {line or '.'}" for line in description),
}
lines = [f"{name}: {value}\n" for name, value in fields.items() if value]
(control / "control").write_text("".join(lines))
(control / "conffiles").write_text("".join(f"{path}\n" for path in deb["conf-files"]))
PYTHON

# Directories that were made for the files have the modes that a package has, whatever the umask is.
find "$root/package" -type d -exec chmod 755 {} +
dpkg-deb --root-owner-group --build "$root/package" "$out" | sed "s/^/deb.sh: /"
