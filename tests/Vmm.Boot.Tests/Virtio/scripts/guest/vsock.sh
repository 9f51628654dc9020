# A socket device of vhost-device-vsock, before and after a reboot.
# From the environment: uds (the path of the back-end's socket on the host), back_end (words that find it there), bus, metrics (the VMM's file),
# bytes (through a connection), rounds (of unbind and bind).
. /run/vmm/checks.sh
. /run/vmm/back-ends.sh

# Who listens at port P of CID 2 is who listens at the path with _P on the host.
host_listens() { # PORT ADDRESS [OPTION]
    ask "rm -f ${uds}_$1 /tmp/vmm-vsock-$1; (timeout 1000 socat $3 UNIX-LISTEN:${uds}_$1,fork $2 >/dev/null 2>&1 &); for i in 1 2 3 4 5 6 7 8 9; do test -S ${uds}_$1 && break; sleep 0.2; done; echo listening"
}
sum() { sha256sum < "$1" | cut -c 1-64; }
# One connection, and the word that comes back is the one that was sent. The back-end knows no half of a connection that is closed: who reads ends it.
echoes() {
    rm -f /tmp/echoed
    timeout 20 socat -t 0.1 VSOCK-CONNECT:2:5001 SYSTEM:"echo $1; read word; test \$word = $1 && echo yes > /tmp/echoed"
    test -s /tmp/echoed
}

modprobe vmw_vsock_virtio_transport
device=$(basename "$(ls -d /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio*)")
check cid test "$(perl -e 'open my $f, "<", "/dev/vsock" or die; my $cid = pack "L", 0; ioctl $f, 0x7b9, $cid or die; print unpack "L", $cid')" = 3
host_listens 5001 EXEC:cat
check echo eventually echoes hello
if [ -e /root/vsock ]; then
    ask 'echo hello from the host'
    check console_after_reboot test "$answer" = 'hello from the host'
    outcome end ok
    exit
fi

# --- a stream from the guest, and one to it
head -c "$bytes" /dev/urandom > /tmp/out
host_listens 5000 CREATE:/tmp/vmm-vsock-5000 -u
check send timeout 60 socat -u FILE:/tmp/out VSOCK-CONNECT:2:5000
sent() {
    ask "sha256sum < /tmp/vmm-vsock-5000 | cut -c 1-64"
    test "$answer" = "$(sum /tmp/out)"
}
# ask speaks to the console, so what it says is not the check's.
for i in 1 2 3 4 5 6 7 8 9; do sent && break; sleep 0.3; done
check what_was_sent_is_on_the_host test "$answer" = "$(sum /tmp/out)"

(timeout 60 socat -u VSOCK-LISTEN:6000 CREATE:/tmp/in) &
listener=$!
sleep 0.5
ask "{ echo CONNECT 6000; sleep 1; cat /tmp/vmm-vsock-5000; } | timeout 60 socat -t 5 - UNIX-CONNECT:$uds | head -n 1 | cut -c 1-2"
check host_connects test "$answer" = OK
wait $listener
check receive test "$(sum /tmp/in)" = "$(sum /tmp/out)"

# --- both ways in one connection, through programs on both sides
(timeout 300 socat VSOCK-LISTEN:6001,fork EXEC:cat &)
sleep 0.5
ask "{ echo CONNECT 6001; sleep 1; cat /tmp/vmm-vsock-5000; sleep 5; } | timeout 60 socat - UNIX-CONNECT:$uds | tail -n +2 | head -c $bytes | sha256sum | cut -c 1-64"
check there_and_back test "$answer" = "$(sum /tmp/out)"
many() { i=0; while [ $i -lt 20 ]; do i=$((i + 1)); echoes "word-$i" || return 1; done; }
check many_connections many
host_listens 5002 OPEN:/dev/zero -U
# At most 64 KiB are in one packet.
exits_of vsock $((bytes / 4096)) sh -c "timeout 60 socat -u VSOCK-CONNECT:2:5002 - | head -c $bytes > /dev/null"
ask "pkill -f '[U]NIX-LISTEN:${uds}_5002'; echo"

# --- a driver that leaves and comes back
rebinds() {
    count=0
    while [ $count -lt "$rounds" ]; do
        rebind vmw_vsock_virtio_transport "$device" "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport/$device" && echoes "round-$count" || { echo "round $count"; return 1; }
        count=$((count + 1))
    done
}
check_rebinds

# --- a back-end that dies under load: connections break, new ones work
losses vsock0
before=$losses
(timeout 60 socat -u FILE:/dev/zero VSOCK-CONNECT:2:5000 > /dev/null 2>&1 &)
sleep 2
ask "kill -9 \$($back_end) && echo killed"
check killed test "$answer" = killed
losses vsock0
check loss_was_seen test "$losses" -gt "$before"
check echo_after_kill eventually echoes again
pkill socat
ask "pkill -f '[U]NIX-LISTEN:$uds'; rm -f /tmp/vmm-vsock*; echo hello from the host"
check console_after_kill test "$answer" = 'hello from the host'
: > /root/vsock
sync
reboot -f
sleep 60
