# The drivers of all devices leave and come back, rounds times each; from the environment.
. /run/vmm/checks.sh
modprobe -a virtio_pmem nd_pmem virtio_mem virtio_balloon virtio_rng

# The virtio devices of a driver that are not in use as the root.
devices_of() { ls "/sys/bus/virtio/drivers/$1" 2>/dev/null | grep '^virtio[0-9]'; }
root=$(basename "$(readlink -f /sys/block/vda/device)")
# rebind DRIVER DEVICE: out, and in again, in which its probe succeeded.
rebind() {
    echo "$2" > "/sys/bus/virtio/drivers/$1/unbind" || return 1
    [ ! -e "/sys/bus/virtio/drivers/$1/$2" ] || return 1
    echo "$2" > "/sys/bus/virtio/drivers/$1/bind" || return 1
    [ -e "/sys/bus/virtio/drivers/$1/$2" ]
}
rebinds() {
    count=0
    while [ $count -lt "$rounds" ]; do
        rebind "$@" || { echo "round $count"; return 1; }
        count=$((count + 1))
    done
}
each() {
    for driver in virtio_blk virtio_net virtio_console virtio_rng virtio_balloon virtio_pmem virtio_mem; do
        devices=$(devices_of $driver | grep -vx "$root")
        check "there_is_$driver" test -n "$devices"
        for device in $devices; do
            check "rebind_$driver" rebinds $driver "$device"
        done
    done
}
count_all() { ask 'echo $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l) $(wc -l < /proc/$pid/maps)'; }

# Whatever is made once is made by the first rounds.
all=$rounds
rounds=2
each > /dev/null
count_all
before=$answer
rounds=$all
each
count_all
fact descriptors_threads_mappings "$before" then "$answer"
# Of mappings, the C library's arenas and the collector's ranges come and go.
check no_descriptor_and_no_thread_leaks test "${before% *}" = "${answer% *}"
check no_mapping_leaks test "${answer##* }" -le $((${before##* } + 16))

# All of them work.
check block_works dd if=/dev/vdb of=/dev/null bs=64k count=16 iflag=direct
check rng_works sh -c 'test $(head -c 64 /dev/hwrng | wc -c) = 64'
check pmem_works sh -c 'eventually() { for i in 1 2 3 4 5 6 7 8 9; do "$@" && return; sleep 0.3; done; return 1; }; eventually test -b /dev/pmem0 && dd if=/dev/pmem0 of=/dev/null bs=64k count=16'
check console_works sh -c 'echo to nobody > /dev/hvc0'
check net_works sh -c 'ip link set eth0 up && ip addr replace 192.168.77.2/24 dev eth0 && for i in 1 2 3 4 5 6 7 8 9; do busybox ping -c 1 -W 1 192.168.77.1 && exit; done; exit 1'
outcome end ok
