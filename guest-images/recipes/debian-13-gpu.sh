# Debian 13's kernel for any hardware (6.12), which has drivers for graphics cards, with busybox
suite=trixie
. "$here/distribution-image.sh"
kernel_package=linux-image-amd64
