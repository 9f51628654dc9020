# A machine that its host makes stand still while the back-ends of its devices are busy: vdb is a disk, there are a file system, a card and sockets.
# From the environment: commands (the pipe that takes pause and resume on the host), disk and share (what is behind two of them there), uds (the
# socket of vhost-device-vsock there), host4 (an address that is the host), pauses, kill_disk and kill_net (words that find two back-ends), metrics, bus.
. /run/vmm/checks.sh
. /run/vmm/back-ends.sh

check mount sh -c 'modprobe virtiofs && mount -t virtiofs share /mnt'
modprobe vmw_vsock_virtio_transport
ip link set eth0 up && ip addr add 10.91.0.15/24 dev eth0 && ip route replace default via 10.91.0.2
reaches() { timeout 20 iperf3 -c "$host4" -n "$1"; }
check network eventually reaches 100000
ask "rm -f ${uds}_5001; (timeout 1000 socat UNIX-LISTEN:${uds}_5001,fork EXEC:cat >/dev/null 2>&1 &); for i in 1 2 3 4 5 6 7 8 9; do test -S ${uds}_5001 && break; sleep 0.2; done; echo listening"
head -c 300000 /dev/urandom > /tmp/out
sum=$(sha256sum < /tmp/out)
# The back-end knows no half of a connection that is closed: who reads ends it.
sockets_echo() {
    rm -f /tmp/back
    timeout 100 socat -t 0.1 VSOCK-CONNECT:2:5001 SYSTEM:'cat /tmp/out & head -c 300000 > /tmp/back'
    test "$(sha256sum < /tmp/back)" = "$sum"
}
check sockets eventually sockets_echo

# What is written is read again and compared soon, until an interrupt, after which fio ends with 128.
verified() { # NAME OPTION...
    fio --name="$@" --size=256k --bs=4k --rw=randwrite --verify=crc32c --verify_fatal=1 --verify_backlog=16 --time_based --runtime=3000 --minimal > "/tmp/$1.log" 2>&1
    case $? in 0 | 128) ;; *) tail -n 3 "/tmp/$1.log" > "/tmp/$1.failed" ;; esac
}
# again NAME COMMAND...: again and again until it is enough; how often it went well is in /tmp/NAME.done.
again() {
    again_name=$1
    shift
    : > "/tmp/$again_name.done"
    while [ ! -e /tmp/enough ]; do
        "$@" > "/tmp/$again_name.log" 2>&1 || { tail -n 3 "/tmp/$again_name.log" > "/tmp/$again_name.failed"; return; }
        echo >> "/tmp/$again_name.done"
    done
}
verified disk --filename=/dev/vdb --ioengine=libaio --direct=1 --iodepth=16 --allow_file_create=0 &
verified files --directory=/mnt --ioengine=psync --fsync=8 &
again sockets sockets_echo &
again network timeout 100 iperf3 -c "$host4" -n 1M &
written() { awk '{ print $5 }' /sys/block/vdb/stat; }
changed() { stat -c %y /mnt/files.0.0 2>/dev/null; }
done_of() { wc -l < "/tmp/$1.done"; }
failures() { cat /tmp/*.failed 2>/dev/null; }
began() { [ "$(written)" -gt 20 ] && [ -n "$(changed)" ]; }
check loads_begin eventually began
# What the back-ends do shows in the file of the disk, in the files that are shared and in the host's loopback.
state="stat -c %y $disk \$(find $share -type f) | sort | sha256sum | cut -c 1-20; grep lo: /proc/net/dev"
# tell N WORD: has the machine obey, and waits for its N-th answer.
tell="tell() { echo \$1 > $commands; n=0; until test \$(grep -c ^\$1: $commands.answers) = \$2; do n=\$((n + 1)); test \$n -lt 600 || return 1; sleep 0.1; done; }"
count=0 still=0
while [ $count -lt "$pauses" ]; do
    count=$((count + 1))
    # What passt had taken before the pause goes on to its end.
    ask "$tell; tell pause $count || echo no pause; sleep 0.7; a=\$($state); sleep 0.7; b=\$($state); tell resume $count || echo no resume; test \"\$a\" = \"\$b\" && echo still || echo \$a moved \$b"
    if [ "$answer" = still ]; then still=$((still + 1)); else echo "pause $count: $answer"; fi
    sleep 1
done
check stands_still test $still = "$pauses"
check no_failure test "$(failures)" = ""
written_before=$(written) changed_before=$(changed) network_before=$(done_of network) sockets_before=$(done_of sockets)
disk_goes_on() { [ "$(written)" -gt $((written_before + 50)) ]; }
files_go_on() { [ "$(changed)" != "$changed_before" ]; }
network_goes_on() { [ "$(done_of network)" -gt "$network_before" ]; }
sockets_go_on() { [ "$(done_of sockets)" -gt "$sockets_before" ]; }
check disk_goes_on eventually disk_goes_on
check files_go_on eventually files_go_on
check network_goes_on eventually network_goes_on
check sockets_go_on eventually sockets_go_on
fact loads disk "$(written)" network "$(done_of network)" sockets "$(done_of sockets)"

# --- killed while it stands still: a disk whose queues are given back loses nothing
losses disk1
before=$losses
ask "$tell; tell pause $((pauses + 1)); kill -9 \$($kill_disk) \$($kill_net) && echo killed; sleep 1; tell resume $((pauses + 1))"
check killed test "$answer" = killed
losses disk1
check loss_was_seen test "$losses" -gt "$before"
written_before=$(written)
check disk_goes_on_after_kill eventually disk_goes_on
: > /tmp/enough
pkill -INT fio
ended() { test "$(pgrep -c fio)" = 0; }
check loads_end eventually ended
check no_failure_of_the_disk test ! -e /tmp/disk.failed
check no_failure_of_the_files test ! -e /tmp/files.failed
pkill iperf3
check network_after_kill eventually reaches 100000
check sockets_at_the_end eventually sockets_echo
ask 'echo hello from the host'
check console_at_the_end test "$answer" = 'hello from the host'
outcome end ok
