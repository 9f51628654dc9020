# Debian 13 on a disk: its cloud kernel, an initramfs, and root.ext4 with fio, iperf3, ethtool and the like
suite=trixie
. "$here/disk-image.sh"
