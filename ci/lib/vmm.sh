#!/bin/sh
# ci/lib/vmm.sh [BINARY]: puts vmm in place and prints the path of the binary.
#
# BINARY is a file, or a URL that it is fetched from; without it, vmm is built from source, which needs the .NET SDK. With VMM_SHA256 the
# file must have that sum. Distribution packages that are missing are installed (as root, or by sudo).
# On GitHub, the path is the step's output "vmm".
set -eu
. "$(dirname "$0")/common.sh"
. "$ci_repository/scripts/lib/packages.sh"

# fetch URL FILE: by what is there.
fetch() {
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --retry 3 --output "$2" -- "$1"
    elif command -v wget >/dev/null; then
        wget --quiet --tries=3 --output-document="$2" -- "$1"
    else
        packages_install fetch && curl --fail --silent --show-error --location --retry 3 --output "$2" -- "$1"
    fi
}

binary=${1:-}
case $binary in
    "")
        say "no binary is given: vmm is built from source"
        binary=$("$ci_repository/scripts/build")
        ;;
    *://*)
        # Where the next step finds it, and the next job does not.
        place=${RUNNER_TEMP:-${TMPDIR:-/tmp}}
        directory=$(mktemp -d "$place/vmm.XXXXXX")
        fetch "$binary" "$directory/vmm" || fail "vmm cannot be fetched from $binary; give the URL of the binary itself, or a file."
        chmod 755 "$directory/vmm"
        binary=$directory/vmm
        ;;
    *)
        [ -f "$binary" ] || wrong "there is no vmm at $binary; give the path of the binary, a URL, or nothing to build it."
        binary=$(absolute "$binary")
        ;;
esac

if [ -n "${VMM_SHA256:-}" ]; then
    printf '%s  %s\n' "$VMM_SHA256" "$binary" | sha256sum --check --status -- || fail "$binary does not have the SHA-256 sum $VMM_SHA256."
fi

# Libraries that unpack kernels; without them vmm lets the guest do it, so their lack is no error.
packages_install run || say "going on without these packages"

version=$("$binary" version) || fail "$binary does not run here: it is no vmm for this machine."
say "vmm is $binary ($version)"
output vmm "$binary"
printf '%s\n' "$binary"
