# In the guest, as one command of vmm exec: what it was given, one line each, and what becomes of what it does to its tree.
# Its first argument is the directory to report from; the others are only shown.
echo "release $(uname -r)"
echo "directory $(pwd)"
for argument; do printf 'argument <%s>\n' "$(printf '%s' "$argument" | base64 -w 0)"; done
echo "variable <$TEST_VARIABLE>"
echo "home <$HOME>"
echo "input $(sha256sum | cut -c 1-64)"
echo "error one" >&2
# A pipe can be opened by its name, which a port could not.
echo "error two" > /dev/stderr
echo "output by name" > /dev/stdout
for place in proc sys dev dev/pts dev/shm run tmp; do
    grep -q " /$place " /proc/mounts && echo "mounted $place"
done
test -L /dev/fd && test -c /dev/null && test -c /dev/ptmx && echo "devices"
test "$(cat /sys/class/net/lo/operstate)" != down && echo "loopback"
echo changed > /etc/vmm-exec-mark && rm -f /etc/hostname /bin/cat && mkdir /vmm-new && echo "changes made"
test "$(cat < /etc/vmm-exec-mark 2>/dev/null || head -1 /etc/vmm-exec-mark)" = changed && echo "changes seen"
# An orphan that outlives the command does not keep the machine.
(setsid sleep 1000 &) 
exit 7
