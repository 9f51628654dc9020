# Virtio on PCI by level-triggered lines, which devices share (pci=nomsi): block, net, console and rng all at once.
. /run/vmm/checks.sh
host=192.168.77.1
check no_msi sh -c '! grep -q MSI /proc/interrupts'
check lines sh -c 'grep virtio /proc/interrupts | grep -q IO-APIC'
check lines_are_shared grep -q 'virtio[0-9]*, *virtio' /proc/interrupts
check block fio --name=rw --filename=/dev/vdb --ioengine=libaio --direct=1 --iodepth=16 --size=4m --rw=randrw --bs=4k --verify=crc32c --verify_fatal=1 --minimal
check net_up sh -c "ip link set eth0 up && ip addr replace 192.168.77.2/24 dev eth0"
check net eventually busybox ping -c 1 -W 1 $host
together() {
    dd if=/dev/hwrng of=/tmp/random bs=512 count=64 iflag=fullblock 2> /dev/null &
    random=$!
    fio --name=rw --filename=/dev/vdb --ioengine=libaio --direct=1 --iodepth=16 --size=16m --rw=randread --bs=4k --minimal > /tmp/fio &
    disk=$!
    iperf3 -c $host -t 3 > /tmp/iperf && iperf3 -c $host -t 3 -R >> /tmp/iperf && wait $random && wait $disk
}
check together together
ask 'echo hello from the host'
check console_input test "$answer" = "hello from the host"
# A line that nobody answers is switched off by the kernel, with a complaint.
check no_lost_line sh -c '! dmesg | grep -q "nobody cared"'
outcome end ok
