#!/usr/bin/env bash
# Installs what builds and runs the broker for Windows: Rust's target, mingw-w64 to link, and
# Wine to run it. Wine 8 lacks a library that every Rust program wants; one that passes on to
# what Wine has is built into target/windows. A second run changes nothing.
#
# Where the target cannot be added, target/windows/missing says why, and so does .ci/run at its
# end; what needs it is then left out, and said to be.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
one_at_a_time

cd "$(dirname "$0")/../.."
triple=x86_64-pc-windows-gnu
dir=${CARGO_TARGET_DIR:-target}/windows
mkdir -p "$dir"

# Whether the toolchain that builds this can build for Windows.
has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ]; }

rm -f "$dir/missing"
if ! has_target; then
	say "adding Rust's target $triple"
	# Tried once: a machine without a way to Rust's server will not get one.
	if ! said=$(timeout 300 rustup target add "$triple" 2>&1) || ! has_target; then
		printf 'the Rust target %s cannot be added: %s\n' "$triple" "$(tail -n 1 <<<"${said:-no rustup}")" >"$dir/missing"
		say "$(cat "$dir/missing")"
		exit 0
	fi
fi

missing=()
command -v x86_64-w64-mingw32-gcc >/dev/null || missing+=(gcc-mingw-w64-x86-64)
command -v wine >/dev/null || missing+=(wine wine64)
if [ ${#missing[@]} -gt 0 ]; then
	apt_lists
	apt_install "${missing[@]}"
fi

# Rust's standard library asks for random numbers by one function of this library.
if [ ! -e "$dir/bcryptprimitives.dll" ]; then
	partial=$(mktemp -d -p "$dir")
	printf '%s\n' '#include <windows.h>' '#include <ntsecapi.h>' \
		'__declspec(dllexport) BOOL ProcessPrng(BYTE *bytes, SIZE_T length) { return RtlGenRandom(bytes, length); }' \
		>"$partial/prng.c"
	x86_64-w64-mingw32-gcc -shared -o "$partial/bcryptprimitives.dll" "$partial/prng.c" -ladvapi32
	mv "$partial/bcryptprimitives.dll" "$dir"
	rm -rf "$partial"
fi
# A place for Wine's own things, made once: it takes seconds, and none of the user's is touched.
if [ ! -e "$dir/prefix/system.reg" ]; then
	say "preparing Wine"
	WINEPREFIX=$(realpath "$dir")/prefix WINEDEBUG=-all DISPLAY='' timeout 300 wineboot --init >/dev/null 2>&1 9<&- ||
		die "Wine cannot be prepared"
fi
say "all there"
