# Throughput, and what the VMM spends on it. From the environment: seconds (of each run), rounds.
# Says VMM-BENCH NAME OPERATIONS-PER-SECOND OPERATIONS CPU-NANOSECONDS GUEST-TICKS; an operation of the network is a MiB.
. /run/vmm/checks.sh
host=192.168.77.1
ip link set eth0 up
ip addr add 192.168.77.2/24 dev eth0
eventually busybox ping -c 1 -W 1 $host > /dev/null

# The process's time on processors, all threads; and its ticks (10 ms) in the guest, which are a part of that.
spent() {
    ask 'echo $(cat /proc/$pid/task/*/schedstat | awk "{ s += \$1 } END { printf \"%.0f\", s }") $(cut -d " " -f 43 /proc/$pid/stat)'
}

# measure NAME FUNCTION: the function sets rate and operations.
measure() {
    spent
    before=$answer
    $2
    spent
    set -- "$1" $before $answer
    echo "VMM-BENCH $1 $rate $operations $(($4 - $2)) $(($5 - $3))"
}

block() {
    # Terse output, version 3: 6 KiB read, 8 reads per second.
    result=$(fio --name=b --filename=/dev/vdb --direct=1 --ioengine=libaio --time_based --runtime="$seconds" --size=100% --minimal --terse-version=3 "$@")
    operations=$(($(echo "$result" | cut -d ';' -f 6) / unit))
    rate=$(echo "$result" | cut -d ';' -f 8)
}
random() { unit=4 block --rw=randread --bs=4k --iodepth=32; }
sequential() { unit=1024 block --rw=read --bs=1M --iodepth=4; }
tcp() {
    # By time: iperf3 notices the end of a number of bytes only at its next whole second.
    set -- $(iperf3 -c $host -t "$seconds" -J "$@" | awk '
        /"sum_received"/ { received = 1 }
        received && /"bytes"/ { bytes = $2 + 0 }
        received && /"bits_per_second"/ { printf "%.0f %.3f\n", bytes, $2 / 8 / 1048576; exit }')
    operations=$(($1 / 1048576))
    rate=$2
}
send() { tcp; }
receive() { tcp -R; }

unit=4 block --rw=randread --bs=4k --iodepth=32 # warms up
tcp
for round in $(seq "${rounds:-1}"); do
    measure block-random-4k random
    measure block-sequential-1M sequential
    measure net-send send
    measure net-receive receive
done
outcome end ok
