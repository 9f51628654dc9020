# Writes files and tells of each that is on the disk; then the host kills the VMM. From the environment: files (how many).
. /run/vmm/checks.sh
check mkfs mke2fs -q -F -t ext4 /dev/vdb
check mount mount -t ext4 /dev/vdb /mnt
fio --name=noise --directory=/mnt --ioengine=libaio --direct=1 --iodepth=32 --rw=randwrite --bs=4k --size=8M --time_based --runtime=300 --minimal > /dev/null 2>&1 &
while [ ! -e /mnt/noise.0.0 ]; do sleep 0.1; done
mkdir /mnt/flushed
number=0
while [ $number -lt "$files" ]; do
    head -c $((number * 3000 + 1)) /dev/urandom | dd of=/mnt/flushed/$number bs=64k conv=fsync 2>/dev/null
    sync /mnt/flushed
    echo "VMM-FLUSHED $(sha256sum < /mnt/flushed/$number | cut -c 1-64) $number"
    number=$((number + 1))
done
ask 'kill -9 $pid'
echo "VMM-FACT not killed"
