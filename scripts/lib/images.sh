# What guest images and the sandbox's image have in common: distribution kernels, roots of busybox, and a cache that is
# never seen half-written. To be sourced by a script that has set repository.

. "$repository/scripts/lib/packages.sh"
. "$repository/scripts/lib/debian-archive.sh"
images=$vmm_cache/guest-images

work=
trap 'if [ -n "$work" ]; then rm -rf "$work"; fi' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

hash_of() { cat "$@" | sha256sum | cut -c 1-10; }

# new_work: a directory beside the result, so that the final rename is atomic.
new_work() {
    mkdir -p "$images"
    # What a build that was killed left behind is of no use to anyone.
    find "$images" -maxdepth 1 -name '.build.*' -mmin +180 -exec rm -rf {} +
    work=$(mktemp -d "$images/.build.XXXXXX")
    chmod 755 "$work"
}

# finish DIRECTORY: gives the work directory its final name; who comes second with the same name uses the first one's.
finish() {
    if ! mv -T "$work" "$1" 2>/dev/null; then
        [ -d "$1" ] || { echo "images.sh: could not rename $work to $1." >&2; exit 1; }
        rm -rf "$work"
    fi
    work=
}

# unpack_deb FILE DIRECTORY, without dpkg's database.
unpack_deb() { mkdir -p "$2" && dpkg-deb --extract "$1" "$2"; }

# distribution_kernel SUITE [PACKAGE]: the release's cloud kernel, or the one of that package, unpacked with all its modules; sets kernel
# (directory) and kernel_version.
distribution_kernel() {
    debian_update "$1"
    meta=${2:-linux-image-cloud-amd64}
    meta_version=$(debian_field "$1" "$meta" Version)
    package=$(debian_field "$1" "$meta" Depends | sed 's/[ (,].*//')
    [ -n "$package" ] || { echo "Debian $1 has no $meta in its package lists." >&2; exit 1; }
    kernel_version=$meta_version
    kernel_name=$1
    [ $# -lt 2 ] || kernel_name=$1-${2#linux-image-}
    kernel=$images/kernel-$kernel_name-$meta_version-$(hash_of "$repository/guest-images/extract-vmlinux")
    if [ ! -d "$kernel" ]; then
        echo "Fetching and unpacking $package $meta_version of Debian $1" >&2
        new_work
        deb=$(debian_download "$1" "$package" "$work")
        unpack_deb "$deb" "$work/root"
        rm "$deb"
        mv "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
        mv "$work"/root/boot/config-* "$work/config"
        mkdir -p "$work/modules/lib"
        if [ -d "$work/root/usr/lib/modules" ]; then
            mv "$work/root/usr/lib/modules" "$work/modules/lib/modules"
        else
            mv "$work/root/lib/modules" "$work/modules/lib/modules"
        fi
        rm -rf "$work/root"
        # busybox's insmod does not know every compression, and a guest has no time for it.
        find "$work/modules" -name '*.ko.xz' -exec xz -d {} +
        find "$work/modules" -name '*.ko.zst' -exec zstd -dq --rm {} +
        depmod -b "$work/modules" "$(ls "$work/modules/lib/modules")"
        sh "$repository/guest-images/extract-vmlinux" "$work/vmlinuz" "$work/vmlinux"
        finish "$kernel"
    fi
}

# copy_modules KERNEL DIRECTORY NAME...: copies modules and what they depend on into DIRECTORY/lib/modules, and
# writes the names to DIRECTORY/etc/modules-in-order as paths in loading order. Names that this kernel has not are skipped:
# they are built in, or the other release has them.
copy_modules() {
    from=$1
    to=$2
    shift 2
    release=$(ls "$from/modules/lib/modules")
    mkdir -p "$to/lib/modules/$release"
    for module in "$@"; do
        modprobe -S "$release" -d "$from/modules" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r path; do
            relative=${path#"$from/modules/"}
            if [ ! -e "$to/$relative" ]; then
                mkdir -p "$to/$(dirname "$relative")"
                cp "$path" "$to/$relative"
            fi
        done || true
    done
    cp "$from/modules/lib/modules/$release"/modules.builtin* "$from/modules/lib/modules/$release/modules.order" "$to/lib/modules/$release/"
    depmod -b "$to" "$release"
}

# busybox_root DIRECTORY: the skeleton of a root with a static busybox under all its names.
busybox_root() {
    mkdir -p "$1/bin" "$1/sbin" "$1/etc" "$1/proc" "$1/sys" "$1/dev" "$1/tmp" "$1/run" "$1/root" "$1/mnt"
    cp "$(command -v busybox)" "$1/bin/busybox"
    "$1/bin/busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' > "$1/etc/passwd"
    echo 'root:x:0:' > "$1/etc/group"
}

# pack DIRECTORY FILE: an initramfs, the same bytes each time.
pack() {
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) | gzip -n -9 > "$2"
}

# debian_tree SUITE KERNEL DIRECTORY PACKAGE...: a minimal root of that release with these packages and the kernel's modules.
# Without a kernel package: what boots it comes from outside.
debian_tree() {
    tree_suite=$1
    tree_kernel=$2
    tree=$3
    shift 3
    debian_sources "$tree_suite" | mmdebstrap --quiet --variant=minbase --format=directory \
        --include="$(echo "$@" | tr ' ' ',')" "$tree_suite" "$tree" - >&2
    mkdir -p "$tree/usr/lib/modules"
    [ -e "$tree/lib/modules" ] || ln -s ../usr/lib/modules "$tree/lib/modules"
    cp -a "$tree_kernel"/modules/lib/modules/* "$tree/usr/lib/modules/"
    rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/usr/share/doc "$tree"/usr/share/man "$tree"/usr/share/locale
}

# ext4_image DIRECTORY FILE SIZE [OPTION...]: a sparse file with an ext4 of that tree; nothing is left for the kernel to do later.
ext4_image() {
    ext4_tree=$1
    ext4_file=$2
    truncate -s "$3" "$ext4_file"
    shift 3
    PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 "$@" -d "$ext4_tree" "$ext4_file"
}
