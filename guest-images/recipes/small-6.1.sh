# a small self-built 6.1 (Debian's source) for boot-time measurements; takes minutes the first time
recipe_packages=small-kernel

# The kernel is cached by itself: a change of /init must not cost minutes.
small_kernel() {
    debian_update bookworm
    source_version=$(debian_field bookworm linux-source-6.1 Version)
    [ -n "$source_version" ] || { echo "Debian bookworm has no linux-source-6.1 in its package lists." >&2; exit 1; }
    kernel=$images/kernel-small-$source_version-$(hash_of "$here/small-6.1.config")
}

recipe_key() {
    small_kernel >&2
    echo "$source_version-$(hash_of "$here/build" "$repository/scripts/lib/images.sh" "$here/recipes/small-6.1.sh" "$here/small-6.1.config" "$here/init" "$here/tiny-init.c" \
        "$(command -v busybox)")"
}

recipe_prepare() {
    small_kernel
    [ ! -d "$kernel" ] || return 0
    echo "Building the small kernel from linux-source-6.1 $source_version (takes minutes, once)" >&2
    new_work
    deb=$(debian_download bookworm linux-source-6.1 "$work")
    unpack_deb "$deb" "$work/package"
    rm "$deb"
    mkdir "$work/source"
    xz -dc "$work/package/usr/src/linux-source-6.1.tar.xz" | tar -x -C "$work/source" --strip-components=1
    rm -rf "$work/package"
    (
        cd "$work/source"
        export KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=vmm KBUILD_BUILD_HOST=vmm
        make -s tinyconfig
        scripts/kconfig/merge_config.sh -m .config "$here/small-6.1.config"
        make -s olddefconfig
        nice make -s -j "$(nproc)" vmlinux bzImage
    ) > "$work/log" 2>&1 </dev/null || {
        tail -n 30 "$work/log" >&2
        echo "Building the small kernel failed; the end of its log is above." >&2
        exit 1
    }
    cp "$work/source/arch/x86/boot/bzImage" "$work/vmlinuz"
    cp "$work/source/vmlinux" "$work/vmlinux"
    cp "$work/source/.config" "$work/config"
    rm -rf "$work/source" "$work/log"
    finish "$kernel"
}

recipe_build() {
    cp "$kernel/vmlinuz" "$kernel/vmlinux" "$work/"
    echo "$source_version" > "$work/version"
    guest_root "$work/root" ""
    pack "$work/root" "$work/initramfs.cpio.gz"
    rm -rf "$work/root"
    tiny_initramfs "$work/initramfs-tiny.cpio.gz"
}
