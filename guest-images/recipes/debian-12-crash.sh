# Debian 12's cloud kernel with a module that crashes it in the ways that boot tests ask for
suite=bookworm
. "$here/distribution-image.sh"
recipe_packages="guest-images small-kernel"

recipe_key() {
    distribution_kernel "$suite" >&2
    echo "$kernel_version-$(cat "$here/build" "$repository/scripts/lib/images.sh" "$here/distribution-image.sh" "$here/recipes/debian-12-crash.sh" "$here/crash.c" "$here/init" \
        "$(command -v busybox)" | sha256sum | cut -c 1-10)"
}

# crash_module FILE: built with the kernel's own headers, whose makefiles name each other by absolute paths.
crash_module() {
    tree=$work/headers
    headers=$(debian_field "$suite" linux-headers-cloud-amd64 Depends | sed 's/[ (,].*//')
    common=$(echo "$headers" | sed 's/-cloud-amd64$/-common/')
    kbuild=$(debian_field "$suite" "$headers" Depends | tr ',' '\n' | sed -n 's/^ *\(linux-kbuild-[^ ]*\).*/\1/p')
    for package in "$headers" "$common" "$kbuild"; do
        deb=$(debian_download "$suite" "$package" "$work")
        unpack_deb "$deb" "$tree"
        rm "$deb"
    done
    # The compiler that the kernel was made with may be another release's; this one is near enough for a module of a page.
    find "$tree/usr/src/$headers" "$tree/usr/src/$common" -maxdepth 1 -name 'Makefile*' -exec sed -i "s|/usr/src/|$tree/usr/src/|g" {} +
    sed -i 's/gcc-[0-9]*/gcc/' "$tree/usr/src/$headers/.kernelvariables" 2>/dev/null || true
    ln -sfn "$tree/usr/lib/$kbuild/scripts" "$tree/usr/src/$headers/scripts"
    ln -sfn "$tree/usr/lib/$kbuild/tools" "$tree/usr/src/$headers/tools"
    ln -sfn "$tree/usr/lib/$kbuild/scripts" "$tree/usr/src/$common/scripts"
    ln -sfn "$tree/usr/lib/$kbuild/tools" "$tree/usr/src/$common/tools"
    mkdir -p "$work/module"
    cp "$here/crash.c" "$work/module/vmm-crash.c"
    echo "obj-m := vmm-crash.o" > "$work/module/Makefile"
    make -s -C "$tree/usr/src/$headers" M="$work/module" CC=gcc modules >&2
    cp "$work/module/vmm-crash.ko" "$1"
    rm -rf "$tree" "$work/module"
}

recipe_build() {
    cp "$kernel/vmlinuz" "$kernel/vmlinux" "$work/"
    echo "$kernel_version" > "$work/version"
    guest_root "$work/root" "$boot_modules"
    copy_modules "$kernel" "$work/root" $boot_modules
    crash_module "$work/root/vmm-crash.ko"
    pack "$work/root" "$work/initramfs.cpio.gz"
    rm -rf "$work/root"
}
