# virtio-pmem by its shared memory region. From the environment: region (0 or 1: whether this kernel's driver knows regions), pmem (the file).
. /vmm/shared.sh
modprobe -a virtio_pmem nd_pmem ext4
check driver eventually find_device virtio_pmem
check there eventually test -b /dev/pmem0
if [ "$region" = 1 ]; then
    check driver_uses_the_region has_feature 0
else
    check driver_knows_no_region eval '! has_feature 0'
fi
check region find_region 0
check comes_back eventually test -b /dev/pmem0
used=$((0x$(sed -n 's/^ *\([0-9a-f]*\)-.*: namespace0.0.*/\1/p' /proc/iomem)))
fact region "$bus address=$address used=$used length=$length"
# namespace0.0 begins where the kernel has told itself that the memory is.
check is_where_the_region_is test "$used" = "$address"
check mkfs mke2fs -F -b 4096 /dev/pmem0
check mount_dax sh -c 'mount -t ext4 -o dax=always /dev/pmem0 /mnt && grep -q "pmem0 /mnt ext4.*dax=always" /proc/mounts'
head -c 4194304 /dev/zero > /mnt/f
check stores mem /mnt/f 0 rw put 70000 persistent sync
head -c 4194304 /dev/zero > /mnt/g
check churns mem churn 200 7 /mnt/g
check host_has_it hears 1 "grep -c persistent $pmem"
check umount umount /mnt
outcome end ok
