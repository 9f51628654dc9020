# The recipe that all distribution kernels share; the caller sets suite, and afterwards kernel_package where it is
# not the cloud kernel's. Sourced by build.
recipe_packages=guest-images
kernel_package=

# Loaded by /init where they exist: how the guest tells its host that it panicked, and how it hears the power button.
boot_modules="pvpanic-mmio pvpanic-pci button evdev rtc_cmos"
# There for modprobe, and for the kernel's own requests.
other_modules="virtio_pci virtio_mmio virtio_blk virtio_net virtio_console virtio_rng virtio_balloon virtio_mem virtio_pmem virtiofs
    virtio_input virtio_gpu nd_pmem vsock vmw_vsock_virtio_transport virtio_fs fuse ext4 i6300esb af_packet i8042 atkbd"

recipe_key() {
    distribution_kernel "$suite" $kernel_package >&2
    echo "$kernel_version-$(echo "$boot_modules $other_modules" | cat - "$here/build" "$repository/scripts/lib/images.sh" "$here/distribution-image.sh" "$here/init" "$here/tiny-init.c" \
        "$(command -v busybox)" | sha256sum | cut -c 1-10)"
}

recipe_prepare() { distribution_kernel "$suite" $kernel_package; }

recipe_build() {
    cp "$kernel/vmlinuz" "$kernel/vmlinux" "$work/"
    echo "$kernel_version" > "$work/version"
    guest_root "$work/root" "$boot_modules"
    copy_modules "$kernel" "$work/root" $boot_modules $other_modules
    pack "$work/root" "$work/initramfs.cpio.gz"
    rm -rf "$work/root"
    tiny_initramfs "$work/initramfs-tiny.cpio.gz"
}
