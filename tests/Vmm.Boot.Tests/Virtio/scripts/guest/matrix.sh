# Block, net, console and rng on one bus with one ring layout.
# From the environment: queues (of the scratch disk), size (for fio), rounds (of unbind and bind), bytes (through the network).
. /run/vmm/checks.sh
host=192.168.77.1
guest=192.168.77.2

# --- console and root
check console test "$(tty)" = /dev/hvc0
check root grep -q '^/dev/vda / ext4 rw' /proc/mounts
check negotiated_ring sh -c "cut -c 35 /sys/block/vdb/device/features | grep -qx $packed"
ask 'echo hello from the host'
check console_input test "$answer" = "hello from the host"
dd if=/dev/urandom of=/root/file bs=64k count=16 2>/dev/null
sum=$(sha256sum < /root/file)
sync
echo 3 > /proc/sys/vm/drop_caches
check root_keeps_data test "$(sha256sum < /root/file)" = "$sum"
check root_trim fstrim -v /

# --- rng
check rng_driver grep -q '^virtio_rng' /sys/class/misc/hw_random/rng_current
dd if=/dev/hwrng of=/tmp/random bs=512 count=8 iflag=fullblock 2>/dev/null
# 4096 random bytes have all but never fewer than 240 of the 256 values, and do not compress.
check rng_bytes sh -c 'test $(od -An -v -t u1 -w1 /tmp/random | sort -u | wc -l) -ge 240 && test $(gzip -9 < /tmp/random | wc -c) -gt 4096'

# --- block
disk=/dev/vdb
fact disk_queues $(ls /sys/block/vdb/mq | wc -l)
check disk_queues test "$(ls /sys/block/vdb/mq | wc -l)" = "$queues"
check disk_serial test "$(cat /sys/block/vdb/serial)" = scratch
# As many jobs as queues, each with a piece of its own.
fio_common="--filename=$disk --ioengine=libaio --direct=1 --iodepth=32 --size=$size --numjobs=$queues --offset_increment=$size --group_reporting --minimal"
verified="--verify=crc32c --verify_fatal=1"
check fio_read_write_beside_trim fio $fio_common --name=rw --rw=randrw --rwmixread=30 --bssplit=4k/60:16k/30:64k/10 $verified --name=trim --offset=50% --rw=randtrim --bs=16k
check fio_trim_then_write fio $fio_common --name=tw --rw=randtrimwrite --bs=16k $verified
check discard blkdiscard -o 1M -l 4M $disk
check write_zeroes blkdiscard -z -o 8M -l 4M $disk
check zeroes_read_back sh -c "dd if=$disk bs=1M skip=8 count=4 iflag=direct 2>/dev/null | cmp -n 4194304 - /dev/zero"

# --- net
network() {
    ip link set eth0 up && ip addr replace $guest/24 dev eth0 && eventually busybox ping -c 1 -W 1 $host
}
# A file there and back, compared by its sum at both ends.
transfer() {
    head -c "$bytes" /dev/urandom > /tmp/out
    ask 'rm -f /tmp/vmm-net; (timeout 60 socat -u TCP-LISTEN:5300,reuseaddr CREATE:/tmp/vmm-net >/dev/null 2>&1 &); echo listening'
    eventually socat -u FILE:/tmp/out TCP:$host:5300 || return 1
    sum=$(sha256sum < /tmp/out | cut -c 1-64)
    ask "for i in 1 2 3 4 5 6 7 8 9; do test \$(stat -c %s /tmp/vmm-net) = $bytes && break; sleep 0.3; done; sha256sum < /tmp/vmm-net | cut -c 1-64"
    [ "$answer" = "$sum" ] || { echo "sent $sum, there is $answer"; return 1; }
    ask '(timeout 60 socat -u FILE:/tmp/vmm-net TCP-LISTEN:5301,reuseaddr >/dev/null 2>&1 &); echo serving'
    eventually sh -c "socat -u TCP:$host:5301 CREATE:/tmp/in"
    [ "$(sha256sum < /tmp/in | cut -c 1-64)" = "$sum" ]
}
# The console must not go into a check's own output while it asks.
transfer_check() {
    if transfer; then outcome "$1" ok; else outcome "$1" failed; ip -s link show eth0; dmesg | tail -n 5; fi
}
# Its server gives up a client of which it hears nothing for seconds, as happens where guests are emulated; that alone is tried again, and told.
measure() {
    iperf3 -c "$host" -n "$bytes" -f m "$@" > /tmp/iperf 2> /tmp/iperf-error && return
    cat /tmp/iperf-error
    grep -q 'control socket has closed' /tmp/iperf-error || return 1
    echo "again $*" >> /tmp/iperf-again
    iperf3 -c "$host" -n "$bytes" -f m "$@" > /tmp/iperf
}
throughput() {
    check "iperf_send_$1" measure
    fact "iperf_send_$1" $(grep receiver /tmp/iperf)
    check "iperf_receive_$1" measure -R
    fact "iperf_receive_$1" $(grep receiver /tmp/iperf)
}
check net_up network
fact offloads $(ethtool -k eth0 | grep -E '^(tx-checksumming|rx-checksumming|tcp-segmentation-offload|generic-receive-offload): ')
transfer_check transfer_offloads
throughput offloads
ethtool -K eth0 tso off gso off gro off tx off rx off >/dev/null 2>&1
transfer_check transfer_plain
throughput plain
fact iperf_again $(cat /tmp/iperf-again 2>/dev/null)
nstat -az TcpInCsumErrors UdpInCsumErrors > /tmp/errors
check checksums sh -c '! awk "/Csum/ && \$2 != 0 { bad = 1 } END { exit !bad }" /tmp/errors'
ask 'nstat -az TcpInCsumErrors | awk "/Csum/ { print \$2 }"'
check checksums_at_the_host test "$answer" = 0

# --- drivers that leave and come back
virtio_of() { basename "$(readlink -f "$1/device")"; }
rebind() { # DRIVER DEVICE FILE: what appears when it is back
    echo "$2" > "/sys/bus/virtio/drivers/$1/unbind" && echo "$2" > "/sys/bus/virtio/drivers/$1/bind" && eventually test -e "$3" || return 1
    # A disk's node, not a file that somebody wrote while it was away.
    case $3 in /dev/*) test -b "$3" ;; esac
}
rebinds() {
    count=0
    while [ $count -lt "$rounds" ]; do
        rebind "$@" || { echo "round $count"; return 1; }
        count=$((count + 1))
    done
}
block_device=$(virtio_of /sys/block/vdb)
net_device=$(virtio_of /sys/class/net/eth0)
rng_device=$(basename "$(ls -d /sys/bus/virtio/drivers/virtio_rng/virtio*)")
sum=$(dd if=$disk bs=1M count=16 iflag=direct 2>/dev/null | sha256sum)
rebinds virtio_blk "$block_device" $disk
rebinds virtio_net "$net_device" /sys/class/net/eth0
ask 'echo $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l)'
before=$answer
check rebind_block rebinds virtio_blk "$block_device" $disk
check rebind_net rebinds virtio_net "$net_device" /sys/class/net/eth0
check rebind_rng rebinds virtio_rng "$rng_device" "/sys/bus/virtio/drivers/virtio_rng/$rng_device"
# Requests in flight end, one way or the other. The driver leaves once fio is at work: one that starts while the disk is away would make a file
# of its name. It comes back when fio has let go of the old disk, whose name the new one takes then.
reads() { read -r reads rest < "/sys/block/${disk#/dev/}/stat"; }
at_work() { reads && [ "$reads" -gt $((before_load + 100)) ]; }
gone() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status"; }
under_load() {
    count=0
    while [ $count -lt 3 ]; do
        reads
        before_load=$reads
        fio --name=load --filename=$disk --ioengine=libaio --direct=1 --iodepth=32 --rw=randread --bs=4k --time_based --runtime=60 --size=16M --minimal --thread --allow_file_create=0 > /dev/null 2>&1 &
        load=$!
        eventually at_work || { echo "fio does not begin"; return 1; }
        echo "$block_device" > /sys/bus/virtio/drivers/virtio_blk/unbind || return 1
        # It ends when its requests have, one way or the other.
        kill -KILL $load
        eventually gone $load || { echo "requests do not end"; return 1; }
        wait $load
        echo "$block_device" > /sys/bus/virtio/drivers/virtio_blk/bind && eventually test -b $disk || return 1
        count=$((count + 1))
    done
}
check rebind_block_under_load under_load
check disk_is_unchanged test "$(dd if=$disk bs=1M count=16 iflag=direct | sha256sum)" = "$sum"
net_load() {
    network || return 1
    timeout 20 iperf3 -u -b 0 -c $host -t 10 > /dev/null 2>&1 &
    load=$!
    sleep 1
    rebind virtio_net "$net_device" /sys/class/net/eth0 || return 1
    kill $load 2>/dev/null
    wait $load
    network
}
check rebind_net_under_load net_load
# Rings that are stopped, resized and started again one by one while frames pass, both ways; on PCI only, as far as Linux goes.
ring_reset() {
    network || return 1
    timeout 60 iperf3 -c $host -t 4 --bidir > /tmp/iperf 2>&1 &
    load=$!
    sleep 1
    count=0
    while [ $count -lt "$rounds" ]; do
        for size in 64 128 256; do
            ethtool -G eth0 rx $size tx $size || { kill $load; return 1; }
        done
        count=$((count + 1))
    done
    ethtool -g eth0
    # The connection outlives it.
    wait $load && network
}
if [ "$(cut -c 41 /sys/class/net/eth0/device/features)" = 1 ]; then
    check ring_reset_under_load ring_reset
    cat /tmp/iperf | grep receiver
fi
transfer_check transfer_after_rebind
ask 'echo $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l)'
fact descriptors_and_threads "$before" then "$answer"
check nothing_leaked test "$before" = "$answer"
outcome end ok
