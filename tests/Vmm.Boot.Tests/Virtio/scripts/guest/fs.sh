# A file system that virtiofsd serves, before and after a reboot.
# From the environment: share (its directory on the host), back_end (words that find virtiofsd there), bus, metrics (the VMM's file),
# full (0 or 1), files, size (for fio), seconds and operations (of files.pl), seed, rounds (of unbind and bind).
. /run/vmm/checks.sh
. /run/vmm/back-ends.sh

mounted() { modprobe virtiofs && mount -t virtiofs share /mnt; }
sum_of() { (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c 1-64); }
host_sum_of() { ask "cd $1 && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c 1-64"; }

if [ -e /root/sum ]; then
    check mount_after_reboot mounted
    check files_after_reboot test "$(sum_of /mnt/tree)" = "$(cat /root/sum)"
    ask "cat $share/hello"
    check console_after_reboot test "$answer" = 'from the host'
    outcome end ok
    exit
fi

check mount mounted
check hello grep -qx 'from the host' /mnt/hello

# --- many files, in and out
mkdir -p /tmp/tree/a/b/c /mnt/tree
head -c $((files * 3000)) /dev/urandom | split -b 3000 -a 4 - /tmp/tree/a/b/c/file-
sum=$(sum_of /tmp/tree)
check tree_in sh -c 'tar -C /tmp/tree -c . | tar -C /mnt/tree -x'
host_sum_of "$share/tree"
check tree_is_on_the_host test "$answer" = "$sum"
umount /mnt
check mount_again mounted
check tree_out sh -c 'mkdir /tmp/back && tar -C /mnt/tree -c . | tar -C /tmp/back -x'
check tree_is_back test "$(sum_of /tmp/back)" = "$sum"
rm -rf /tmp/back /tmp/tree
echo "$sum" > /root/sum

# --- data
verified="--verify=crc32c --verify_fatal=1 --minimal"
check fio_read_write fio --name=rw --directory=/mnt --ioengine=psync --rw=randrw --bssplit=4k/60:16k/30:64k/10 --size="$size" $verified
[ "$full" = 0 ] || check fio_mmap fio --name=mmap --directory=/mnt --ioengine=mmap --rw=randwrite --bs=4k --size="$size" $verified
check random_operations perl /run/vmm/files.pl /mnt/random "$seed" "$seconds" "$operations"
fact random_operations "$(tail -n 1 /tmp/check)"
sum=$(sha256sum < /mnt/random | cut -c 1-64)
ask "sha256sum < $share/random | cut -c 1-64"
check random_file_on_the_host test "$answer" = "$sum"
many_stats() { i=0; while [ $i -lt 100 ]; do i=$((i + 1)); : > "/mnt/n$i" && rm "/mnt/n$i" || return 1; done; }
# Each at least: lookup, create, flush, release, unlink, forget.
exits_of fs 500 many_stats

# --- a driver that leaves and comes back
umount /mnt
device=$(basename "$(ls -d /sys/bus/virtio/drivers/virtiofs/virtio*)")
rebinds() {
    count=0
    while [ $count -lt "$rounds" ]; do
        rebind virtiofs "$device" "/sys/bus/virtio/drivers/virtiofs/$device" && mount -t virtiofs share /mnt && grep -qx 'from the host' /mnt/hello && umount /mnt || { echo "round $count"; return 1; }
        count=$((count + 1))
    done
}
check_rebinds

# --- a back-end that dies: its session is gone, so the file system is mounted anew
check mount_before_kill mounted
losses fs0
before=$losses
fio --name=load --directory=/mnt --ioengine=psync --rw=randrw --bs=4k --size=1m --time_based --runtime=60 --minimal > /tmp/load 2>&1 &
load=$!
sleep 2
ask "kill -9 \$($back_end) && echo killed"
check killed test "$answer" = killed
losses fs0
check loss_was_seen test "$losses" -gt "$before"
ended() { ! kill -0 $load 2>/dev/null; }
if eventually ended; then fact load_after_kill ended; else fact load_after_kill waits; kill -9 $load; fi
umount -l /mnt
check mount_after_kill eventually sh -c 'timeout 10 mount -t virtiofs share /mnt'
check files_after_kill test "$(sum_of /mnt/tree)" = "$(cat /root/sum)"
sync
# With the file system mounted: nobody says good-bye to the back-end.
reboot -f
sleep 60
