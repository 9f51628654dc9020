# A graphics card that vhost-user-gpu serves. There is no disk: this runs in the initramfs.
# From the environment: metrics (the VMM's file), picture (its screenshot), width, height, pixels (1: the back-end sends pixels, 0: dma-bufs).
. /vmm/checks.sh

# display COUNTER: its value, in value. The metrics are written every second.
display() {
    ask "tail -n 1 $metrics | grep -oE '\"display_$1\":[0-9]+' | grep -oE '[0-9]+\$'"
    value=$answer
}

# wait_for NAME COUNTER LEAST: a check that the counter gets there within half a minute. Not by check, which has no way to the host.
wait_for() {
    tries=15
    until display "$2" && [ "${value:-0}" -ge "$3" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { outcome "$1" "failed: $2 is $value, and not $3"; return; }
        sleep 2
    done
    outcome "$1" ok
}

check driver modprobe virtio-gpu
check card eventually test -c /dev/dri/card0
check frame_buffer eventually test -c /dev/fb0
connector=/sys/class/drm/card0-Virtual-1
check connected grep -qx connected $connector/status
check mode test "$(head -n 1 $connector/modes)" = "${width}x$height"
# The name in the second of four descriptors.
check edid test "$(dd if=$connector/edid bs=1 skip=77 count=11 2>/dev/null)" = 'vmm display'
check size_of_the_frame_buffer grep -qx "$width,$height" /sys/class/graphics/fb0/virtual_size
wait_for scanout width "$width"
display height
check scanout_height test "$value" = "$height"

# The kernel's console and its cursor draw too.
for console in /sys/class/vtconsole/vtcon*; do
    ! grep -q 'frame buffer' "$console/name" || echo 0 > "$console/bind"
done
sleep 2.5
display updates
before=$value
# In x8r8g8b8: blue 30h, green 20h, red 10h; the end of the line is the byte that means nothing.
# In one piece: each write is an update of the whole picture.
yes "$(printf '0 \020')" | head -c $((width * height * 4)) > /tmp/fill
fill() { dd if=/tmp/fill of=/dev/fb0 bs=$((width * height * 4)) 2>/dev/null; }
check draw fill
wait_for updates updates $((before + 1))
fact updates "$before" then "$value"
if [ "$pixels" = 1 ]; then
    wait_for update_bytes update_bytes $((width * height * 4))
    # Three bytes for each pixel, red first: all of them must be the same.
    tries=15
    until ask "head -n 2 $picture | tail -n 1 | tr -cd '0-9 '; tail -c $((width * height * 3)) $picture | tr -d '\\020\\040\\060' | wc -c" && [ "$answer" = "$width ${height}0" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || break
        sleep 2
    done
    check screenshot test "$answer" = "$width ${height}0"
else
    wait_for dma_bufs dmabufs 1
fi
display breaks
check no_rule_was_broken test "$value" = 0
outcome end ok
