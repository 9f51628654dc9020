# A network card of passt, before and after a reboot.
# From the environment: back_end (words that find passt on the host), bus, metrics (the VMM's file), bytes (through the network), rounds (of unbind
# and bind), host4 and host6 (addresses that are the host).
. /run/vmm/checks.sh
. /run/vmm/back-ends.sh

cat > /tmp/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev eth0
ip route replace default via "$router"
echo "$ip/$mask via $router" > /tmp/lease
END
chmod +x /tmp/dhcp
ip link set eth0 up
check dhcp timeout 60 busybox udhcpc -i eth0 -n -q -s /tmp/dhcp
fact lease "$(cat /tmp/lease)"
check dhcp_address grep -q '^10\.91\.0\.15/24 via 10\.91\.0\.2' /tmp/lease
if [ -e /root/again ]; then
    check iperf_after_reboot eventually sh -c "timeout 20 iperf3 -c $host4 -n 100000"
    ask 'echo hello from the host'
    check console_after_reboot test "$answer" = 'hello from the host'
    outcome end ok
    exit
fi
has_global() { ip -6 addr show dev eth0 scope global | grep inet6 | grep -qv tentative; }
check router_advertisement eventually has_global

# iperf3 IP-VERSION HOST NAME [-R]
throughput() {
    check "iperf_$3" sh -c "timeout 60 iperf3 $1 -c $2 -n $bytes -f m $4 > /tmp/iperf"
    fact "iperf_$3" $(grep receiver /tmp/iperf)
}
throughput -4 "$host4" send4
throughput -4 "$host4" receive4 -R
throughput -6 "$host6" send6
throughput -6 "$host6" receive6 -R

# A file there and back, compared by its sum at both ends.
transfer() {
    head -c "$bytes" /dev/urandom > /tmp/out
    ask "rm -f /tmp/vmm-passt; (timeout 60 socat -u TCP-LISTEN:5310,reuseaddr CREATE:/tmp/vmm-passt >/dev/null 2>&1 &); echo listening"
    eventually socat -u FILE:/tmp/out TCP:$host4:5310 || return 1
    sum=$(sha256sum < /tmp/out | cut -c 1-64)
    ask "for i in 1 2 3 4 5 6 7 8 9; do test \$(stat -c %s /tmp/vmm-passt) = $bytes && break; sleep 0.3; done; sha256sum < /tmp/vmm-passt | cut -c 1-64"
    [ "$answer" = "$sum" ] || { echo "sent $sum, there is $answer"; return 1; }
    ask '(timeout 60 socat -u FILE:/tmp/vmm-passt TCP-LISTEN:5311,reuseaddr >/dev/null 2>&1 &); echo serving'
    eventually sh -c "socat -u TCP:$host4:5311 CREATE:/tmp/in"
    [ "$(sha256sum < /tmp/in | cut -c 1-64)" = "$sum" ]
}
if transfer; then outcome transfer ok; else outcome transfer failed; fi
exits_of net_bytes $((bytes / 1500)) sh -c "timeout 60 iperf3 -c $host4 -n $bytes"

# --- a driver that leaves and comes back
device=$(basename "$(readlink -f /sys/class/net/eth0/device)")
up() { rebind virtio_net "$device" /sys/class/net/eth0 && ip link set eth0 up && ip addr add 10.91.0.15/24 dev eth0 && ip route replace default via 10.91.0.2; }
ups() {
    count=0
    while [ $count -lt "$rounds" ]; do
        up || { echo "round $count"; return 1; }
        count=$((count + 1))
    done
}
check rebind ups
check iperf_after_rebind eventually sh -c "timeout 20 iperf3 -c $host4 -n 100000"

# --- a back-end that dies under load: connections break, new ones work
losses net0
before=$losses
timeout 40 iperf3 -c $host4 -t 30 > /dev/null 2>&1 &
load=$!
sleep 3
ask "kill -9 \$($back_end) && echo killed"
check killed test "$answer" = killed
losses net0
check loss_was_seen test "$losses" -gt "$before"
kill $load 2>/dev/null
check iperf_after_kill eventually sh -c "timeout 20 iperf3 -c $host4 -n 100000"
check iperf6_after_kill eventually sh -c "timeout 20 iperf3 -6 -c $host6 -n 100000"
ask 'echo hello from the host'
check console_after_kill test "$answer" = 'hello from the host'
: > /root/again
sync
reboot -f
sleep 60
