# The recipe of the disk images: a distribution's kernel and an initramfs that goes on in root.ext4. The caller sets suite.
# Sourced by build.
recipe_packages="guest-images disks"

# What tests and demonstrations run in a guest. Besides these a minimal Debian, and busybox for what that lacks (poweroff, vi, nc).
root_packages="busybox-static e2fsprogs ethtool fdisk fio iperf3 iproute2 kmod procps socat util-linux"
# The disk has all modules of its kernel; these take the initramfs to it.
boot_modules="pvpanic-mmio pvpanic-pci button evdev rtc_cmos"
root_modules="virtio_pci virtio_mmio virtio_blk virtio_console virtio_pmem nd_pmem ext4"

# The root by itself: a change of /init must not cost a minute.
disk_kernel() {
    distribution_kernel "$suite"
    disk_root=$images/root-$suite-$kernel_version-$(hash_of "$here/disk-image.sh")
}

recipe_key() {
    disk_kernel >&2
    echo "$kernel_version-$(echo "$boot_modules $root_modules" | cat - "$here/build" "$repository/scripts/lib/images.sh" "$here/disk-image.sh" "$here/init" \
        "$here/tiny-init.c" "$(command -v busybox)" | sha256sum | cut -c 1-10)"
}

recipe_prepare() {
    disk_kernel
    [ ! -d "$disk_root" ] || return 0
    echo "Making a Debian root of $suite (mmdebstrap, about a minute)" >&2
    new_work
    debian_tree "$suite" "$kernel" "$work/tree" $root_packages
    mkdir -p "$work/tree/usr/lib/busybox" "$work/tree/mnt"
    busybox=$(cd "$work/tree" && ls usr/bin/busybox bin/busybox 2>/dev/null | head -n 1)
    "$work/tree/$busybox" --list | while read -r applet; do ln -s "/$busybox" "$work/tree/usr/lib/busybox/$applet"; done
    echo vmm > "$work/tree/etc/hostname"
    # With a journal, unlike the sandbox's own: the guest is to recover by it.
    ext4_image "$work/tree" "$work/root.ext4" 1G
    rm -rf "$work/tree"
    finish "$disk_root"
}

recipe_build() {
    cp "$kernel/vmlinuz" "$kernel/vmlinux" "$work/"
    echo "$kernel_version" > "$work/version"
    ln -s "../$(basename "$disk_root")/root.ext4" "$work/root.ext4"
    guest_root "$work/root" "$boot_modules"
    copy_modules "$kernel" "$work/root" $boot_modules $root_modules
    pack "$work/root" "$work/initramfs.cpio.gz"
    rm -rf "$work/root"
}
