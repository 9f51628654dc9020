#!/bin/sh
# ci/lib/kvm.sh VMM [auto|host|sandbox]: where guests boot; prints "host" or "sandbox".
#
# auto     on this machine's KVM where it runs stock kernels, else in the sandbox: an emulated machine with a nested KVM
# host     on this machine's KVM; an error where it does not run them
# sandbox  in the sandbox
#
# A /dev/kvm that this user may not open is opened to all where sudo allows it, as is usual on machines that live for one job.
# On GitHub, the answer is the step's output "where".
set -eu
. "$(dirname "$0")/common.sh"

device=${VMM_KVM_DEVICE:-/dev/kvm}
rules=${VMM_UDEV_RULES:-/etc/udev/rules.d}

may_open() { [ -r "$device" ] && [ -w "$device" ]; }

# Every way that may help; whether one did is seen afterwards.
open_device() {
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
        say "this user may not open $device, and sudo is not to be had without a password; add the user to the device's group"
        return 0
    fi
    say "opening $device to this user"
    # The rule makes it last when udev looks at the device again; where udev does not run, chmod is all.
    if command -v udevadm >/dev/null && [ -d "$rules" ]; then
        printf '%s\n' 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' | sudo -n tee "$rules/99-vmm-kvm.rules" >/dev/null || true
        if sudo -n udevadm control --reload-rules; then
            sudo -n udevadm trigger --name-match=kvm --settle || true
        fi
    fi
    may_open || sudo -n chmod 0666 "$device" || true
}

answer() {
    output where "$1"
    printf '%s\n' "$1"
    exit 0
}

[ $# -ge 1 ] || wrong "usage: ci/lib/kvm.sh VMM [auto|host|sandbox]"
vmm=$1
wanted=${2:-auto}
case $wanted in
    sandbox) answer sandbox ;;
    auto | host) ;;
    *) wrong "'$wanted' is none of auto, host and sandbox." ;;
esac

if [ -e "$device" ] && ! may_open; then
    open_device
fi
if report=$("$vmm" check 2>&1); then
    say "guests boot on this machine's KVM"
    answer host
fi
printf '%s\n' "$report" | sed 's/^/ci: | /' >&2
[ "$wanted" = auto ] || fail "this machine's KVM does not run stock kernels (above), and it was to: take a machine that has KVM, or 'auto' for the sandbox."
say "this machine's KVM does not run stock kernels (above): guests boot in the sandbox, which is emulated and many times slower"
answer sandbox
