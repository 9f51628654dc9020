# Persistent memory, memory that is plugged in, the balloon, and at the end the watchdog.
# From the environment: plugged (KiB that virtio-mem has), fill (MiB to touch), balloon (MiB that it is to take), reporting (0 or 1),
# oom (0 or 1: the balloon gives back what is needed), watchdog (0 or 1).
. /run/vmm/checks.sh

# --- pmem
if [ -n "$pmem" ]; then
    modprobe -a virtio_pmem nd_pmem
    check pmem_there eventually test -b /dev/pmem0
    check pmem_mkfs mke2fs -q -F -t ext4 -b 4096 /dev/pmem0
    # ext4 refuses this where the device has no DAX.
    check pmem_dax sh -c 'mount -t ext4 -o dax=always /dev/pmem0 /mnt && grep -q "pmem0 /mnt ext4.*dax=always" /proc/mounts'
    check pmem_mmap fio --name=m --directory=/mnt --ioengine=mmap --rw=randwrite --bs=4k --size=4M --fsync=64 --verify=crc32c --verify_fatal=1 --minimal
    head -c 4000000 /dev/urandom > /mnt/data
    sum=$(sha256sum < /mnt/data | cut -c 1-64)
    check pmem_flush sync /mnt/data
    check pmem_umount umount /mnt
    ask "debugfs -R 'cat /data' $pmem 2>/dev/null | sha256sum | cut -c 1-64"
    check pmem_is_the_file test "$answer" = "$sum"
fi

# --- virtio-mem
if [ "$plugged" -gt 0 ]; then
    before=$(memory_total)
    echo online_movable > /sys/devices/system/memory/auto_online_blocks
    modprobe virtio_mem
    more() { [ $(($(memory_total) - before)) -ge $((plugged * 9 / 10)) ]; }
    check mem_grows eventually more
    fact mem_before_and_after "$before" "$(memory_total)"
fi

# --- balloon
mount -o remount,size=95% /tmp
fill() { dd if=/dev/zero of=/tmp/fill bs=1M count="$1" 2>/dev/null; }
host_rss
fact rss_at_start "$rss"
if [ "$oom" = 0 ]; then
    check fill fill "$fill"
    host_rss
    full=$rss
    rm /tmp/fill
    sleep 3
    host_rss
    fact rss_full_and_freed "$full" "$rss"
    # Without a balloon nobody tells the host.
    check host_keeps_what_is_only_freed test "$rss" -gt $((full - fill * 256))
    before=$(memory_total)
    modprobe virtio_balloon
    if [ "$balloon" -gt 0 ]; then
        taken() { [ $((before - $(memory_total))) -ge $((balloon * 1024 * 95 / 100)) ]; }
        check balloon_inflates eventually taken
        fact memory_total_before_and_after "$before" "$(memory_total)"
    fi
    gone=0
    smaller() { host_rss; [ "$rss" -lt $((full - fill * 1024 * 6 / 10)) ]; }
    attempts=60
    until smaller || [ $attempts = 0 ]; do sleep 0.5; attempts=$((attempts - 1)); done
    fact rss_after "$rss"
    check host_gets_memory_back test "$rss" -lt $((full - fill * 1024 * 6 / 10))
    rmmod virtio_balloon
    given() { [ "$(memory_total)" -ge $((before - 1024)) ]; }
    check balloon_gives_back eventually given
    check fill_again fill "$fill"
    host_rss
    fact rss_full_again "$rss"
    check host_follows test "$rss" -gt $((full - fill * 256))
    check memory_is_zero cmp -n $((fill * 1048576)) /tmp/fill /dev/zero
    rm /tmp/fill
else
    available() { sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo; }
    before=$(available)
    modprobe virtio_balloon
    taken() { [ $((before - $(available))) -ge $((balloon * 1024 * 9 / 10)) ]; }
    check balloon_inflates eventually taken
    fact available_before_and_after "$before" "$(available)"
    check more_than_is_left test $((fill * 1024)) -gt "$(available)"
    check deflates_on_oom fill "$fill"
    check memory_is_zero cmp -n $((fill * 1048576)) /tmp/fill /dev/zero
    host_rss
    full=$rss
    rm /tmp/fill
    attempts=60
    smaller() { host_rss; [ "$rss" -lt $((full - fill * 1024 * 6 / 10)) ]; }
    until smaller || [ $attempts = 0 ]; do sleep 0.5; attempts=$((attempts - 1)); done
    fact rss_full_and_reported "$full" "$rss"
    check free_page_reporting test "$rss" -lt $((full - fill * 1024 * 6 / 10))
fi

# --- watchdog
if [ "$watchdog" = 1 ]; then
    check watchdog_driver modprobe i6300esb heartbeat=2
    check watchdog_there eventually test -c /dev/watchdog
    outcome end ok
    sync
    # Closed without the letter that stops it.
    echo > /dev/watchdog
    sleep 60
    echo "VMM-FACT watchdog did not fire"
else
    outcome end ok
fi
