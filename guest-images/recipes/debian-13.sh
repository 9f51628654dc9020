# Debian 13's cloud kernel (6.12, zstd payload), with busybox
suite=trixie
. "$here/distribution-image.sh"
