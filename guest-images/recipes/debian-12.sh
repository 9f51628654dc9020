# Debian 12's cloud kernel (6.1, LZ4 payload), with busybox
suite=bookworm
. "$here/distribution-image.sh"
