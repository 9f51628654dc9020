# What the guests of these tests share, over checks.sh.
. /vmm/checks.sh
# Checks have their output in a file; what is asked must get to the host.
exec 3>&1
PATH=$PATH:/vmm

ask() {
    echo "VMM-ASK $*" >&3
    read -r answer
}

# tool COMMAND...: what the back-end does, in answer then.
tool() { ask ". ./host.sh; tool $*"; }

# answers WHAT COMMAND...: whether the back-end says exactly that.
answers() {
    expected=$1
    shift
    tool "$@"
    [ "$answer" = "$expected" ] || { echo "$*: '$answer', not '$expected'"; return 1; }
}

# hears WHAT SHELL-LINE: whether the host says exactly that.
hears() {
    ask "$2"
    [ "$answer" = "$1" ] || { echo "$2: '$answer', not '$1'"; return 1; }
}

# find_device DRIVER: the virtio device, its parent and its bus, in virtio, parent and bus.
find_device() {
    for virtio in /sys/bus/virtio/drivers/"$1"/virtio*; do [ -e "$virtio" ] && break; done
    [ -e "$virtio" ] || return 1
    parent=$(dirname "$(readlink -f "$virtio")")
    virtio=${virtio##*/}
    case $parent in */pci*) bus=pci ;; *) bus=mmio ;; esac
    parent_name=${parent##*/}
}

# has_feature BIT
has_feature() { [ "$(cut -c $(($1 + 1)) "/sys/bus/virtio/devices/$virtio/features")" = 1 ]; }

# find_region ID: where it is, for mem, in place (FILE@OFFSET); its guest-physical address in address, its length in length. Leaves the device without its driver
# and with it again on MMIO, as /dev/mem does not show registers that a driver has.
find_region() {
    place=
    if [ "$bus" = pci ]; then
        # "ID BAR OFFSET LENGTH" of each.
        line=$(mem regions "$parent/config" | grep "^$1 ") || return 1
        set -- $line
        bar=$2 offset=$3 length=$4
        address=$(($(sed -n "$((bar + 1))s/ .*//p" "$parent/resource") + offset))
        place=$parent/resource$bar@$offset
    else
        registers=0x$(sed -n "s/^ *\([0-9a-f]*\)-.*: $parent_name.*/\1/p" /proc/iomem | head -n 1)
        echo "$parent_name" > /sys/bus/platform/drivers/virtio-mmio/unbind
        devmem $((registers + 0xac)) 32 "$1"
        length=$(($(devmem $((registers + 0xb0)) 32) | ($(devmem $((registers + 0xb4)) 32) << 32)))
        address=$(($(devmem $((registers + 0xb8)) 32) | ($(devmem $((registers + 0xbc)) 32) << 32)))
        echo "$parent_name" > /sys/bus/platform/drivers/virtio-mmio/bind
        [ "$length" != -1 ] || return 1
        place=/dev/mem@$address
    fi
}
