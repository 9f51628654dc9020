# What the scripts of devices with external back-ends share; after checks.sh.

# vmm_exits: how often vCPUs have left the kernel for vmm since the start, in exits. The metrics are written every second.
vmm_exits() {
    sleep 2.5
    ask "tail -n 1 $metrics | grep -oE '\"(port|mmio|other)_exits\":[0-9]+' | awk -F: '{ n += \$2 } END { print n }'"
    exits=$answer
}

# exits_of NAME OPERATIONS COMMAND...: on PCI exits do not grow with operations. On MMIO each interrupt costs two, to read and to
# acknowledge the interrupt status: that is a fact, and no failure.
exits_of() {
    exits_name=$1
    operations=$2
    shift 2
    vmm_exits
    exits_before=$exits
    "$@" > /tmp/exits-command 2>&1 || { outcome "exits_$exits_name" "failed: $*"; return; }
    vmm_exits
    fact "exits_$exits_name" "$((exits - exits_before))" for "$operations" operations
    [ "$bus" != pci ] || check "exits_$exits_name" test $((exits - exits_before)) -lt $((operations / 20))
}

rebind() { # DRIVER DEVICE FILE: what appears when it is back
    echo "$2" > "/sys/bus/virtio/drivers/$1/unbind" && echo "$2" > "/sys/bus/virtio/drivers/$1/bind" && eventually test -e "$3"
}

# losses DEVICE: how many connections of it have ended, in losses.
losses() {
    sleep 2.5
    ask "tail -n 1 $metrics | grep -oE '\"$1\":\\{\"connected\":[01],\"connects\":[0-9]+,\"losses\":[0-9]+' | grep -oE '[0-9]+$'"
    losses=$answer
}

# check_rebinds: the script's rebinds, once for what is made once, and then as a check; the VMM has as many descriptors and threads after it as before.
check_rebinds() {
    rebinds
    ask 'echo $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l)'
    before=$answer
    check rebind rebinds
    ask 'echo $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l)'
    fact descriptors_and_threads "$before" then "$answer"
    check nothing_leaked test "$before" = "$answer"
}
