# What the guests' scripts share. They say what they found in lines for the test to read:
#   VMM-CHECK @UPTIME NAME ok|failed      VMM-FACT NAME VALUE...
stty -echo 2>/dev/null

# outcome NAME ok|WHY-NOT: says what came of a check, and when.
outcome() {
    read -r uptime rest < /proc/uptime
    echo "VMM-CHECK @$uptime $1 $2"
}

# check NAME COMMAND...: the command's exit code is the result; its output is shown where it failed.
check() {
    name=$1
    shift
    if "$@" > /tmp/check 2>&1; then
        outcome "$name" ok
    else
        outcome "$name" "failed ($?): $*"
        tail -n 25 /tmp/check
        dmesg | tail -n 5
    fi
}

fact() { echo "VMM-FACT $*"; }

# ask COMMAND: runs it on the host, with $pid as the VMM's process; its first line is in answer then.
ask() {
    echo "VMM-ASK $*"
    read -r answer
}

host_rss() {
    ask 'awk "/^VmRSS/ { print \$2 }" /proc/$pid/status'
    rss=$answer
}

# eventually COMMAND...: within 30 s.
eventually() {
    attempts=150
    until "$@"; do
        attempts=$((attempts - 1))
        [ $attempts -gt 0 ] || return 1
        sleep 0.2
    done
}

memory_total() { sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo; }
