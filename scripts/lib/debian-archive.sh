# Fetches packages of any Debian release with this host's apt settings, without touching the host's own apt state.
# To be sourced. The mirror is the one the host's apt sources name; VMM_DEBIAN_MIRROR (and VMM_DEBIAN_SECURITY_MIRROR) override it.

vmm_cache=${VMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmm}

# host_debian_uri LABEL: the first archive URI in the host's sources whose Release file carries that label.
host_debian_uri() {
    apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
        awk -F'|' -v label="$1" '$1 == label && $2 == "main" { print $3; exit }'
}

# debian_sources SUITE: sources.list lines for a release, security updates included where the host has them too.
debian_sources() {
    suite=$1
    mirror=${VMM_DEBIAN_MIRROR:-$(host_debian_uri Debian)}
    security=${VMM_DEBIAN_SECURITY_MIRROR:-$(host_debian_uri Debian-Security)}
    if [ -z "$mirror" ]; then
        # A root whose lists were never fetched has no Release files, so no labels: go by what the sources say.
        mirror=$(apt-get indextargets --format '$(COMPONENT)|$(RELEASE)|$(REPO_URI)' 'Identifier: Packages' 2>/dev/null |
            awk -F'|' '$1 == "main" && $2 !~ /security/ && $3 ~ /\/debian\/?$/ { print $3; exit }')
    fi
    if [ -z "$mirror" ]; then
        echo "No Debian mirror in this host's apt sources (apt-get indextargets lists none with component main): set VMM_DEBIAN_MIRROR to one." >&2
        return 1
    fi
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $mirror $suite main"
    if [ -n "$security" ]; then echo "deb [signed-by=$keyring] $security $suite-security main"; fi
}

# debian_apt SUITE COMMAND ARGUMENT...: runs apt-get or apt-cache on that release's archive with state of its own.
debian_apt() {
    suite=$1
    apt_command=$2
    shift 2
    state=$vmm_cache/apt/$suite
    "$apt_command" -qq \
        -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
        -o Dir::Etc::PreferencesParts=/dev/null -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Acquire::Retries=3 "$@"
}

# debian_update SUITE: fetches the package lists unless they are younger than a day (VMM_REFRESH=1 forces it).
# Without the network, lists fetched earlier are good enough.
debian_update() {
    suite=$1
    state=$vmm_cache/apt/$suite
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    [ -e "$state/status" ] || : > "$state/status"
    if [ "${VMM_REFRESH:-0}" != 1 ] && [ -n "$(find "$state/updated" -mmin -1440 2>/dev/null)" ] && [ -s "$state/sources.list" ] &&
        [ "${VMM_DEBIAN_MIRROR:-}" = "$(cat "$state/mirror" 2>/dev/null)" ]; then
        return 0
    fi
    new_sources=$(debian_sources "$suite") || return 1
    printf '%s' "${VMM_DEBIAN_MIRROR:-}" > "$state/mirror"
    printf '%s\n' "$new_sources" > "$state/sources.list"
    if debian_apt "$suite" apt-get update >&2; then
        touch "$state/updated"
    elif [ -e "$state/updated" ]; then
        echo "Could not refresh the package lists of $suite; going on with those of $(date -r "$state/updated" +%F)." >&2
    else
        echo "Could not fetch the package lists of Debian $suite (see apt's messages above)." >&2
        return 1
    fi
}

# debian_field SUITE PACKAGE FIELD: a field of the newest version to be had. Remembered, because apt takes a second to tell.
debian_field() {
    remembered=$vmm_cache/apt/$1/$2.$3
    if [ ! -s "$remembered" ] || [ -n "$(find "$vmm_cache/apt/$1/updated" -newer "$remembered" 2>/dev/null)" ]; then
        debian_apt "$1" apt-cache show --no-all-versions "^$2\$" | sed -n "s/^$3: //p" | head -n 1 > "$remembered.$$"
        mv "$remembered.$$" "$remembered"
    fi
    cat "$remembered"
}

# debian_download SUITE PACKAGE DIRECTORY: puts the package's .deb there and prints its path.
debian_download() {
    (cd "$3" && debian_apt "$1" apt-get download "$2" >&2) || { echo "Could not download $2 of Debian $1." >&2; return 1; }
    find "$3" -maxdepth 1 -name "$2_*.deb"
}
