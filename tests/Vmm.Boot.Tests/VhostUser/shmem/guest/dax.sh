# virtio-fs with DAX, in a window that is smaller than the files. The share is the host's directory share, its tag is t.
# From the environment: files and megabytes (of all of them), rounds (pages that are written).
. /vmm/shared.sh
modprobe -q virtio_fs
modprobe -q virtiofs
find_fs() { find_device virtiofs || find_device virtio_fs; }
check fs_there eventually find_fs
check mount sh -c 'mount -t virtiofs -o dax=always t /mnt && grep -q "/mnt virtiofs.*dax=always" /proc/mounts'

# --- the same bytes on both sides, without a message for them
ask 'truncate -s 1M share/a && echo made'
check host_has_what_is_stored mem /mnt/a 0 rw put 5000 hello ask 'dd if=share/a bs=1 skip=5000 count=5 2>/dev/null' answered hello
check guest_sees_what_the_host_writes mem /mnt/a 0 rw expect 8192 0000 put 8195 x \
    ask 'printf new | dd of=share/a bs=1 seek=8192 conv=notrunc 2>/dev/null; tail -c +8193 share/a | head -c 4' answered newx expect 8192 6e657778
check read_only_sees_it mem /mnt/a 0 ro expect 8192 6e657778
tool requests
fact requests "$answer"
check it_is_mapped sh -c 'case $1 in *SETUPMAPPING=[1-9]*) ;; *) exit 1 ;; esac' sh "$answer"
check nothing_is_read_or_written_by_messages sh -c 'case $1 in *" READ="* | *" WRITE="*) exit 1 ;; esac' sh "$answer"

# --- files that grow, by the guest and by the host
head -c 3000001 /dev/urandom > /tmp/grown
check guest_makes_a_file cp /tmp/grown /mnt/grown
check it_is_the_same cmp /tmp/grown /mnt/grown
check host_has_it hears "$(sha256sum < /tmp/grown)" 'sha256sum < share/grown'
ask 'head -c 3000001 /dev/zero | tr "\0" x >> share/grown; echo grew'
check host_made_it_longer hears "$(sha256sum < /mnt/grown)" 'sha256sum < share/grown'
check programs_run sh -c 'cp /vmm/mem /mnt/mem && /mnt/mem /mnt/a 0 ro expect 5000 68656c6c6f'

# --- more than the window holds
ask "i=0; while [ \$i -lt $files ]; do truncate -s $((megabytes / files))M share/f\$i; i=\$((i + 1)); done; echo made"
check recycles mem churn "$rounds" 1 /mnt/f*
tool requests
fact requests "$answer"
check took_mappings_back sh -c 'case $1 in *REMOVEMAPPING=[1-9]*) ;; *) exit 1 ;; esac' sh "$answer"
sync
check sums hears "$(cat /mnt/f* | sha256sum)" 'cat share/f* | sha256sum'

# --- a file that the host cuts off under the guest
check cut_off mem /mnt/a 0 rw load 8192 6e ask 'truncate -s 4096 share/a; echo cut' same 8192 16 255 put 8192 gone load 8192 ff

check umount umount /mnt
check nothing_is_left answers "ok extents=0" extents
outcome end ok
