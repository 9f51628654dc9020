#!/bin/sh
# The one place that knows which distribution packages the repository's scripts need, and that installs the missing ones.
#
#   scripts/lib/packages.sh install GROUP...     install what is missing (as root, or by sudo)
#   scripts/lib/packages.sh missing GROUP...     print what is missing
#
# or source it and call packages_install / packages_missing / require_dotnet.
# Groups: build (compile and link the program), run (what the program uses where it is there), fetch (what fetches it), tests (ABI and ACPI tests), guest-images, disks (disk images of guests), small-kernel, sandbox, all.
# "a|b" names one package that has different names in different releases. Works on Debian 12 and 13, minimal roots included.

packages_in_group() {
    case $1 in
        # libicu and libssl are what the .NET SDK itself needs; gcc links NativeAOT binaries where there is no clang.
        build) echo "ca-certificates libstdc++6 libssl3|libssl3t64 libicu72|libicu76 gcc libc6-dev zlib1g-dev" ;;
        run) echo "liblz4-1 libzstd1 liblzma5" ;;
        fetch) echo "curl ca-certificates" ;;
        tests) echo "gcc libc6-dev iproute2 acpica-tools liblz4-1 libzstd1 liblzma5" ;;
        guest-images) echo "busybox-static cpio gzip xz-utils zstd lz4 kmod gcc libc6-dev debian-archive-keyring ca-certificates" ;;
        disks) echo "mmdebstrap e2fsprogs debian-archive-keyring ca-certificates" ;;
        small-kernel) echo "busybox-static cpio gzip xz-utils gcc libc6-dev make flex bison bc perl libelf-dev libssl-dev python3-minimal
                            debian-archive-keyring ca-certificates" ;;
        sandbox) echo "qemu-system-x86 mmdebstrap busybox-static cpio e2fsprogs zstd xz-utils kmod gcc libc6-dev util-linux
                       libstdc++6 zlib1g liblz4-1 libzstd1 liblzma5 debian-archive-keyring ca-certificates" ;;
        all) for group in build tests guest-images disks small-kernel sandbox; do packages_in_group "$group"; done ;;
        *) echo "packages.sh: '$1' is no package group; there are: build run fetch tests guest-images disks small-kernel sandbox all." >&2; return 2 ;;
    esac
}

package_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Prints the packages of the groups that are not installed, one per line, alternatives still joined by '|'.
packages_missing() {
    for group in "$@"; do
        wanted=$(packages_in_group "$group") || return 2
        for entry in $wanted; do
            found=
            for name in $(echo "$entry" | tr '|' ' '); do
                if package_installed "$name"; then found=1; fi
            done
            [ -n "$found" ] || echo "$entry"
        done
    done | sort -u
}

package_available() {
    apt-cache show --no-all-versions "$1" >/dev/null 2>&1
}

# Replaces each 'a|b' by the first of its names that apt knows.
packages_resolve() {
    for entry in "$@"; do
        chosen=
        for name in $(echo "$entry" | tr '|' ' '); do
            if [ -z "$chosen" ] && package_available "$name"; then chosen=$name; fi
        done
        [ -n "$chosen" ] || return 1
        echo "$chosen"
    done
}

packages_install() {
    missing=$(packages_missing "$@") || return 2
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "packages.sh: these packages are missing and this is no Debian system (no apt-get), so install their equivalents:" $missing >&2
        return 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            as_root="sudo -n"
        else
            echo "packages.sh: run this as root first: apt-get install" $(echo "$missing" | sed 's/|.*//') >&2
            return 1
        fi
    fi
    echo "Installing distribution packages:" $missing >&2
    # apt's lists may be absent (minimal root) or too old for what the mirror still has: refresh them, then try once more.
    names=$(packages_resolve $missing) || names=
    if [ -n "$names" ] && packages_apt_install "$as_root" $names 2>/dev/null; then return 0; fi
    log=$(mktemp) || return 1
    if ! $as_root apt-get update -qq >"$log" 2>&1; then
        # One unreachable third-party source must not stop us as long as the packages wanted are to be had.
        sed 's/^/apt-get update: /' "$log" >&2
    fi
    rm -f "$log"
    if ! names=$(packages_resolve $missing); then
        echo "packages.sh: apt knows none of these names even after apt-get update:" $missing >&2
        return 1
    fi
    packages_apt_install "$as_root" $names
}

packages_apt_install() {
    apt_as_root=$1
    shift
    apt_log=$(mktemp) || return 1
    if $apt_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@" >"$apt_log" 2>&1 </dev/null; then
        rm -f "$apt_log"
        return 0
    fi
    tail -n 20 "$apt_log" | sed 's/^/apt-get: /' >&2
    rm -f "$apt_log"
    return 1
}

# The .NET SDK is not a Debian package, so it cannot be installed here; say what to do instead.
require_dotnet() {
    wanted_major=10
    if ! command -v dotnet >/dev/null; then
        echo "The .NET $wanted_major SDK is needed and 'dotnet' is not on PATH. Debian does not package it: install the package" \
             "dotnet-sdk-$wanted_major.0 from Microsoft's feed or run their dotnet-install script (--channel $wanted_major.0)," \
             "put it on PATH, then start this again." >&2
        return 1
    fi
    if ! dotnet --list-sdks 2>/dev/null | grep -q "^$wanted_major\."; then
        echo "'dotnet' is here ($(command -v dotnet)) but has no $wanted_major.x SDK; it lists: $(dotnet --list-sdks 2>&1 | tr '\n' ';')." \
             "Install the .NET $wanted_major SDK, then start this again." >&2
        return 1
    fi
}

case ${0##*/} in
    packages.sh)
        action=${1:-}
        [ $# -gt 0 ] && shift
        case $action in
            install) packages_install "$@" ;;
            missing) packages_missing "$@" ;;
            *) echo "usage: packages.sh install|missing GROUP..." >&2; exit 2 ;;
        esac ;;
esac
