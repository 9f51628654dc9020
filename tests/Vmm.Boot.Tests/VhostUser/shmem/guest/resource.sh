# A region without a driver of its own, mapped by a program of the guest: the device is a source of random numbers, so that there is a
# driver that starts it. The back-end has regions 0 (256K) and 3 (1M). From the environment: kill (0 or 1: the back-end dies at the end).
. /vmm/shared.sh
modprobe virtio_rng
check driver eventually find_device virtio_rng
check region_3 find_region 3
fact region_3 "$bus $place $length"
check length_3 test "$length" = 1048576
place_3=$place
check region_0 find_region 0
check length_0 test "$length" = 262144
place_0=$place
check no_region_1 sh -c '. /vmm/shared.sh; find_device virtio_rng; ! find_region 1 >/dev/null'
check driver_again eventually find_device virtio_rng
region() { mem "$place_3" 1048576 rw "$@"; }

check hole_is_ones region load 0 ff load 2 ffff load 4 ffffffff load 0x40000 ffffffffffffffff same 0x1000 16 255
check hole_takes_nothing region store 0 0123456789abcdef load 0 ffffffffffffffff

# --- map, unmap, map elsewhere
check memory answers ok memfd m 256K
# The driver has started it, but the back-end may not have heard yet.
check map eventually answers "ok answered 0" map 3 m 0 0 64K
tool fill m 0 4K 0x5a
check sees region same 0 4096 0x5a same 4096 4096 0 load 0xfff8 0000000000000000 load 0x10000 ff
check stores region store 16 1122334455667788 put 0xfffc wxyz
check host_has answers "ok 8877665544332211" peek m 16 8
check host_has_the_end answers "ok 7778797a" peek m 0xfffc 4
check lives_in_one_mapping region ask '. ./host.sh; tool fill m 32K 4K 0x77' answered ok same 0x8000 4096 0x77 \
    ask '. ./host.sh; tool unmap 3 0 64K' answered 'ok answered 0' load 0x8000 ffffffff store 0x8000 00000000 load 0x8000 ffffffff \
    ask '. ./host.sh; tool map 3 m 32K 32K 4K' answered 'ok answered 0' load 0x8000 77777777 load 0x9000 ffffffff store 0x8000 99999999 \
    ask '. ./host.sh; tool unmap 3 32K 4K' answered 'ok answered 0' load 0x8000 ffffffff
check stored_where_it_was_mapped answers "ok 99999999777777777777777777777777" peek m 32K 16
check overlap_first answers "ok answered 0" map 3 m 0 64K 64K
check overlap answers "ok answered 17 (File exists)" map 3 m 0 68K 4K
check same_file_twice answers "ok answered 0" map 3 m 0 512K 64K
check one_page_at_two_places region store 0x10008 0badcafe load 0x80008 0badcafe
check other_region answers "ok answered 0" map 0 m 0 0 4K
check other_region_sees mem "$place_0" 262144 rw load 8 0badcafe load 0x1000 ff

# --- read-only
tool memfd r 64K
tool fill r 0 64K 0x33
check map_read_only answers "ok answered 0" map 3 r 0 128K 64K ro
check reads_it region same 0x20000 65536 0x33
check writes_are_dropped region store 0x20000 00000000 store 0x2fffc 0000 load 0x20000 33333333 same 0x20000 65536 0x33
check file_is_untouched answers "ok 3333333333333333" peek r 0 8

# --- a file that gets shorter
tool memfd t 64K
tool fill t 0 64K 0x44
check map_to_truncate answers "ok answered 0" map 3 t 0 256K 64K
check truncated region same 0x40000 65536 0x44 ask '. ./host.sh; tool truncate t 8K' answered ok same 0x40000 8192 0x44 load 0x42000 ffffffff \
    store 0x4fffc 01020304 load 0x4fffc ffffffff store 0x40000 55555555 load 0x40000 55555555
check truncated_unmap answers "ok answered 0" unmap 3 256K 64K
check truncated_gone region load 0x40000 ff

# --- the driver goes and comes: mappings do not
check mapped_before region load 0x10008 0badcafe
echo "$virtio" > /sys/bus/virtio/drivers/virtio_rng/unbind
check reset_drops region load 0x10008 ff load 0x20000 ff load 0x80008 ff
check reset_drops_the_other mem "$place_0" 262144 rw load 8 ffffffff
refused() {
    tool map 3 m 0 64K 64K
    case $answer in "ok answered 0") return 1 ;; "ok answered "*) ;; *) return 1 ;; esac
}
check not_before_it_is_started refused
echo "$virtio" > /sys/bus/virtio/drivers/virtio_rng/bind
bound() { answers "ok answered 0" map 3 m 0 64K 64K >/dev/null; }
check maps_again eventually bound
check sees_again region load 0x10008 0badcafe load 0x20000 ff

# --- the back-end dies
if [ "$kill" = 1 ]; then
    check before_the_kill region load 0x10008 0badcafe store 0x10010 12345678
    ask 'kill -9 $(cat back-end.pid); echo killed'
    gone() { region load 0x10008 ffffffff >/dev/null; }
    check dead_is_ones eventually gone
    check dead_takes_nothing region store 0x10008 00000000 load 0x10008 ffffffff same 0x10040 64 255
    check host_answers hears /dev/null 'ls /dev/null'
fi
outcome end ok
