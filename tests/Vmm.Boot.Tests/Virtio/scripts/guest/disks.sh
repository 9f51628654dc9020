# Disks of qemu-storage-daemon: the root, vdb with one queue and vdc with four, before and after a reboot.
# From the environment: back_end (words that find the daemon of vdc on the host), qmp (its socket), bus, metrics (the VMM's file), size (for
# fio), rounds (of unbind and bind), kills (of the daemon).
. /run/vmm/checks.sh
. /run/vmm/back-ends.sh

if [ -e /root/again ]; then
    check root_after_reboot grep -q '^/dev/vda / ext4 rw' /proc/mounts
    check data_after_reboot test "$(dd if=/dev/vdb bs=1M count=4 iflag=direct 2>/dev/null | sha256sum)" = "$(cat /root/again)"
    check fio_after_reboot fio --name=again --filename=/dev/vdc --ioengine=libaio --direct=1 --iodepth=32 --rw=randrw --bs=4k --size=1m --verify=crc32c --verify_fatal=1 --minimal
    ask 'echo hello from the host'
    check console_after_reboot test "$answer" = 'hello from the host'
    outcome end ok
    exit
fi

check root grep -q '^/dev/vda / ext4 rw' /proc/mounts
check queues test "$(ls /sys/block/vdb/mq | wc -l) $(ls /sys/block/vdc/mq | wc -l)" = "1 4"
common="--ioengine=libaio --direct=1 --iodepth=32 --size=$size --group_reporting --minimal"
verified="--verify=crc32c --verify_fatal=1"
check fio_one_queue fio $common --filename=/dev/vdb --name=one --rw=randrw --bssplit=4k/60:16k/30:64k/10 $verified
check fio_four_queues fio $common --filename=/dev/vdc --numjobs=4 --offset_increment="$size" --name=four --rw=randrw --bssplit=4k/60:16k/30:64k/10 $verified
check discard blkdiscard -o 32M -l 1M /dev/vdb
# Depth 1, so that each read is a doorbell and an interrupt.
exits_of disk 400 dd if=/dev/vdb of=/dev/null bs=4k count=400 iflag=direct

# --- a disk that grows
ask "printf '{\"execute\":\"qmp_capabilities\"}{\"execute\":\"block_resize\",\"arguments\":{\"node-name\":\"disk\",\"size\":83886080}}' | timeout 5 socat -t 2 - UNIX-CONNECT:$qmp | grep -c return"
check resize_was_taken test "$answer" -ge 1
grown() { [ "$(cat /sys/block/vdc/size)" = 163840 ]; }
check resize_is_seen eventually grown
check resized_end fio $common --filename=/dev/vdc --name=end --offset=72M --rw=randrw --bs=4k $verified

# --- drivers that leave and come back
virtio_of() { basename "$(readlink -f "$1/device")"; }
one=$(virtio_of /sys/block/vdb)
four=$(virtio_of /sys/block/vdc)
rebinds() {
    count=0
    while [ $count -lt "$rounds" ]; do
        rebind virtio_blk "$1" "$2" || { echo "round $count"; return 1; }
        count=$((count + 1))
    done
}
sum=$(dd if=/dev/vdb bs=1M count=4 iflag=direct 2>/dev/null | sha256sum)
rebinds "$one" /dev/vdb
rebinds "$four" /dev/vdc
ask 'echo $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l)'
before=$answer
check rebind_one rebinds "$one" /dev/vdb
check rebind_four rebinds "$four" /dev/vdc
ask 'echo $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l)'
fact descriptors_and_threads "$before" then "$answer"
check nothing_leaked test "$before" = "$answer"
check disk_is_unchanged test "$(dd if=/dev/vdb bs=1M count=4 iflag=direct 2>/dev/null | sha256sum)" = "$sum"
echo "$sum" > /root/again

# --- a back-end that dies under load, again and again
ended() { ! kill -0 $load 2>/dev/null; }
kill_under_load() {
    losses disk2
    before=$losses
    # What was written is read again and compared all the while.
    fio --name=load --filename=/dev/vdc --ioengine=libaio --direct=1 --iodepth=16 --numjobs=4 --rw=randwrite --bs=4k --size=1m --offset_increment=4m $verified --verify_backlog=64 --time_based --runtime=8 --minimal > /tmp/load 2>&1 &
    load=$!
    sleep 3
    ask "kill -9 \$($back_end) && echo killed"
    [ "$answer" = killed ] || return 1
    losses disk2
    [ "$losses" -gt "$before" ] || return 1
    # A request that was done out of turn is lost: the daemon has no memory of what was in flight. A reset of the device ends it.
    if eventually ended; then
        wait $load || { tail -n 3 /tmp/load; return 1; }
        completed=$((completed + 1))
    else
        stuck=$((stuck + 1))
    fi
    rebind virtio_blk "$four" /dev/vdc && eventually ended
}
completed=0 stuck=0 count=0
while [ $count -lt "$kills" ]; do
    count=$((count + 1))
    if kill_under_load; then outcome "kill_$count" ok; else outcome "kill_$count" failed; fi
done
fact loads_after_kills "$completed" went on, "$stuck" needed a reset
check fio_after_kill fio $common --filename=/dev/vdc --numjobs=4 --offset_increment="$size" --name=four --rw=randrw --bs=4k $verified
sync
reboot -f
sleep 60
