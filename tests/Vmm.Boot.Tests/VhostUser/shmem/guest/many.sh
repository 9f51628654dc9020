# As many mappings as there are pages. From the environment: pages, step (of the pages that are looked at).
. /vmm/shared.sh
modprobe virtio_rng
check driver eventually find_device virtio_rng
check region find_region 0
check driver_again eventually find_device virtio_rng
tool memfd m "$((pages * 4096))"
started() { answers "ok answered 0" map 0 m 0 0 4K && answers "ok answered 0" unmap 0 0 4K; }
check started eventually started
check numbered answers ok number-pages m "$pages"
ask '. ./host.sh; vmm_maps'
maps=$answer
ask '. ./host.sh; vmm_rss'
rss=$answer
fact before "maps=$maps rss=$rss"
for round in 1 2; do
    check "map_$round" answers "ok $pages" map-pages 0 m 0 "$pages" reversed
    check "no_more_$round" answers "ok answered 17 (File exists)" map 0 m 0 0 4K
    ask '. ./host.sh; vmm_maps'
    fact "mapped_$round" "maps=$answer"
    check "maps_$round" test $((answer - maps)) -ge $((pages * 9 / 10))
    check "numbers_$round" mem "$place" $((pages * 4096)) rw numbers "$pages" "$step"
    ask '. ./host.sh; vmm_rss'
    fact "rss_$round" "$answer"
    check "unmap_$round" answers "ok $pages" unmap-pages 0 0 "$pages"
    check "gone_$round" mem "$place" $((pages * 4096)) rw load 0 ff load $((pages * 2048)) ff load $((pages * 4096 - 8)) ffffffffffffffff
    ask '. ./host.sh; vmm_maps'
    fact "unmapped_$round" "maps=$answer"
    check "maps_come_back_$round" test $((answer - maps)) -le 64
    ask '. ./host.sh; vmm_rss'
    fact "rss_after_$round" "$answer"
    # What the first round taught the program it may keep (objects in pools, the heap's segments, some 200 bytes for each mapping); the files' pages not.
    check "rss_comes_back_$round" test $((answer - rss)) -le $((8192 + (round == 1 ? pages / 4 : 0)))
    rss=$answer
done
outcome end ok
