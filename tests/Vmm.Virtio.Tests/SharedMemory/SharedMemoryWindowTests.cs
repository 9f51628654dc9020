using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>The rules of mapping and unmapping, one by one; tests are named after the rules as the discussion of the protocol named them.</summary>
public sealed class SharedMemoryWindowTests : IDisposable
{
    private const ulong Page = TestFile.Page;
    private const ulong Length = 64 * Page;
    private const ulong Place = 1UL << 33;

    private readonly FakeSlots _slots = new();
    private readonly SharedMemoryQuota _machine = SharedMemoryQuota.ForMachine();
    private readonly SharedMemoryQuota _quota;
    private readonly SharedMemoryWindow _window;
    private readonly TestFile _file = new(16, 100);
    private readonly List<string> _log = [];

    public SharedMemoryWindowTests()
    {
        _quota = _machine.ForDevice(4);
        _window = new SharedMemoryWindow(3, Length, _slots, _quota);
        _window.ReportTo(_log.Add);
        _window.Place(Place);
    }

    public void Dispose()
    {
        _window.Dispose();
        Assert.Empty(_slots.Mapped);
        Assert.Equal(0, HostMap.CountOf(_file));
        Assert.Equal((0, 0), (_quota.Taken, _machine.Taken));
        _file.Dispose();
    }

    [Fact]
    public void A_new_window_is_reserved_and_nothing_is_behind_it()
    {
        Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
        Assert.Equal((0, 0UL, 3, Length), (_window.Count, _window.MappedBytes, _window.Id, _window.Length));
        Assert.Equal(ulong.MaxValue, _window.Behind.Load(0));
        _window.Behind.Store(Length - 8, 1);
        Assert.Equal((1L, 1L), (_window.Counters.HoleReads, _window.Counters.HoleWrites));
        Assert.Equal(2, _log.Count);
    }

    [Fact]
    public void What_is_mapped_has_a_slot_and_is_the_file()
    {
        Assert.Equal(0, Map(2, 4, 3));
        Assert.Equal((1, 3 * Page), (_window.Count, _window.MappedBytes));
        Assert.Equal(
            [new HostMap(0, 4 * Page, "---p", 0, ""), new HostMap(4 * Page, 7 * Page, "rw-s", 2 * Page, $"/memfd:{_file.Name} (deleted)"), new HostMap(7 * Page, Length, "---p", 0, "")],
            Maps());
        (AddressRange range, nint host, bool readOnly) = Assert.Single(_slots.Mapped).Value;
        Assert.Equal((new AddressRange(Place + (4 * Page), 3 * Page), _window.HostAddress + (nint)(4 * Page), false), (range, host, readOnly));
        Assert.Equal(103UL, _window.Behind.Load(5 * Page));
        _window.Behind.Store(5 * Page, 7);
        Assert.Equal(7UL, _file.Get(3 * TestFile.Page));
        Assert.Equal(0, _window.TryUnmap(4 * Page, 3 * Page));
        Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
        Assert.Empty(_slots.Mapped);
        Assert.Equal((1L, 1L, 0L, 0L, 0L), (_window.Counters.Maps, _window.Counters.Unmaps, _window.Counters.Mappings, _window.Counters.Refused, _window.Counters.HoleReads));
    }

    [Theory]
    [InlineData(4, 4)]
    [InlineData(3, 2)]
    [InlineData(7, 2)]
    [InlineData(5, 1)]
    [InlineData(3, 6)]
    [InlineData(7, 1)]
    public void Overlap_is_refused_and_the_old_mapping_stays(ulong page, ulong pages)
    {
        Assert.Equal(0, Map(0, 4, 4));
        List<HostMap> before = Maps();
        Assert.Equal(EEXIST, Map(8, page, pages));
        Assert.Equal(before, Maps());
        Assert.Equal(100UL, _window.Behind.Load(4 * Page));
        Assert.Equal((1, 1L, 1), (_window.Count, _window.Counters.Refused, _quota.Taken));
        Assert.Equal(0, Map(8, 8, 1));
        Assert.Equal(0, Map(9, 3, 1));
    }

    [Theory]
    [InlineData(4, 3)]
    [InlineData(5, 3)]
    [InlineData(4, 5)]
    [InlineData(3, 5)]
    [InlineData(3, 4)]
    [InlineData(0, 64)]
    [InlineData(4, 0)]
    public void Exact_unmap_names_one_whole_mapping(ulong page, ulong pages)
    {
        Assert.Equal(0, Map(0, 4, 4));
        Assert.Equal(EINVAL, _window.TryUnmap(page * Page, pages * Page));
        Assert.Equal((1, 1L, 103UL), (_window.Count, _window.Counters.Refused, _window.Behind.Load(7 * Page)));
        Assert.Single(_slots.Mapped);
        Assert.Equal(0, _window.TryUnmap(4 * Page, 4 * Page));
    }

    [Fact]
    public void Two_as_one_cannot_be_unmapped()
    {
        Assert.Equal(0, Map(0, 4, 2));
        Assert.Equal(0, Map(2, 6, 2));
        Assert.Equal(EINVAL, _window.TryUnmap(4 * Page, 4 * Page));
        Assert.Equal(2, _window.Count);
        Assert.Equal(0, _window.TryUnmap(6 * Page, 2 * Page));
        Assert.Equal(0, _window.TryUnmap(4 * Page, 2 * Page));
    }

    [Fact]
    public void Unknown_unmap_is_refused()
    {
        Assert.Equal(ENOENT, _window.TryUnmap(4 * Page, Page));
        Assert.Equal(0, Map(0, 4, 1));
        Assert.Equal(0, _window.TryUnmap(4 * Page, Page));
        Assert.Equal(ENOENT, _window.TryUnmap(4 * Page, Page));
        Assert.Equal(EINVAL, _window.TryUnmap(ulong.MaxValue, Page));
        Assert.Equal(EINVAL, _window.TryUnmap(Page, ulong.MaxValue));
        Assert.Equal(EINVAL, _window.TryUnmap(Length, Page));
        Assert.Equal(5, _window.Counters.Refused);
    }

    [Theory]
    [InlineData(0, 0, 0, EINVAL)]
    [InlineData(0, Length, Page, EINVAL)]
    [InlineData(0, Length - Page, 2 * Page, EINVAL)]
    [InlineData(0, Length - Page, Page + 1, EINVAL)]
    [InlineData(0, ulong.MaxValue & ~0xFFFUL, 2 * Page, EINVAL)]
    [InlineData(0, Page, ulong.MaxValue, EINVAL)]
    [InlineData(0, 0, ulong.MaxValue, EINVAL)]
    [InlineData(1, 0, Page, EINVAL)]
    [InlineData(512, 0, Page, EINVAL)]
    [InlineData(0, 1, Page, EINVAL)]
    [InlineData(0, 2048, Page, EINVAL)]
    [InlineData(long.MaxValue & ~0xFFFL, 0, Page, EOVERFLOW)]
    [InlineData(1UL << 63, 0, Page, EOVERFLOW)]
    [InlineData(ulong.MaxValue & ~0xFFFUL, 0, 2 * Page, EOVERFLOW)]
    [InlineData(16 * Page, 0, Page, ENXIO)]
    [InlineData(15 * Page, 0, Page + 1, ENXIO)]
    [InlineData(1UL << 62, 0, Page, ENXIO)]
    public void Bounds_alignment_and_overflow_are_checked(ulong fdOffset, ulong offset, ulong length, int error)
    {
        Assert.Equal(error, _window.TryMap(_file.Fd, fdOffset, offset, length, true));
        Assert.Equal((0, 0, 1L), (_window.Count, _quota.Taken, _window.Counters.Refused));
        Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
        Assert.Empty(_slots.Mapped);
    }

    [Fact]
    public void The_first_and_the_last_page_of_window_and_file_can_be_mapped()
    {
        Assert.Equal(0, Map(15, 63, 1));
        Assert.Equal(0, Map(0, 0, 16));
        Assert.Equal((115UL, 100UL), (_window.Behind.Load(63 * Page), _window.Behind.Load(0)));
    }

    [Fact]
    public void Odd_length_is_rounded_up_for_the_mapping_and_exact_for_the_unmap()
    {
        Assert.Equal(0, _window.TryMap(_file.Fd, 0, 4 * Page, Page + 1, true));
        Assert.Equal(2 * Page, _window.MappedBytes);
        Assert.Equal(2 * Page, Assert.Single(_slots.Mapped).Value.Range.Length);
        Assert.Equal(101UL, _window.Behind.Load(5 * Page));
        Assert.Equal(EEXIST, Map(0, 5, 1));
        Assert.Equal(EINVAL, _window.TryUnmap(4 * Page, 2 * Page));
        Assert.Equal(EINVAL, _window.TryUnmap(4 * Page, Page));
        Assert.Equal(0, _window.TryUnmap(4 * Page, Page + 1));
        Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
        // The file may end in the middle of its last page.
        _file.SetLength(TestFile.Page + 10);
        Assert.Equal(0, _window.TryMap(_file.Fd, 0, 0, Page + 10, true));
        Assert.Equal(ENXIO, _window.TryMap(_file.Fd, 0, 4 * Page, Page + 11, true));
    }

    [Fact]
    public void Remap_at_the_same_place_shows_the_other_file()
    {
        using var other = new TestFile(2, 900);
        for (int i = 0; i < 10; i++)
        {
            Assert.Equal(0, Map(0, 4, 2));
            Assert.Equal(100UL, _window.Behind.Load(4 * Page));
            Assert.Equal(0, _window.TryUnmap(4 * Page, 2 * Page));
            Assert.Equal(0, _window.TryMap(other.Fd, 0, 4 * Page, 2 * Page, true));
            Assert.Equal(900UL, _window.Behind.Load(4 * Page));
            Assert.Equal(0, _window.TryUnmap(4 * Page, 2 * Page));
        }
        Assert.Equal(0, HostMap.CountOf(other));
        Assert.Equal((20L, 20L), (_window.Counters.Maps, _window.Counters.Unmaps));
    }

    [Fact]
    public void Quota_is_shared_by_the_windows_of_a_device_and_comes_back()
    {
        using var second = new SharedMemoryWindow(4, Length, _slots, _quota);
        for (ulong i = 0; i < 3; i++)
            Assert.Equal(0, Map(0, 2 * i, 1));
        Assert.Equal(0, second.TryMap(_file.Fd, 0, 0, Page, true));
        Assert.Equal(ENOSPC, second.TryMap(_file.Fd, 0, Page, Page, true));
        Assert.Equal(ENOSPC, Map(0, 20, 1));
        Assert.Equal((4, 4), (_quota.Taken, _machine.Taken));
        Assert.Equal(0, _window.TryUnmap(0, Page));
        Assert.Equal(0, second.TryMap(_file.Fd, 0, Page, Page, true));
        second.Dispose();
        Assert.Equal((2, 2), (_quota.Taken, _machine.Taken));
    }

    [Fact]
    public void Read_only_needs_only_a_descriptor_for_reading_and_drops_writes()
    {
        using FileDescriptor reading = _file.Reopen(O_RDONLY);
        Assert.Equal(EACCES, _window.TryMap(reading.Number, 0, 0, Page, true));
        Assert.Equal(0, _quota.Taken);
        Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
        Assert.Equal(0, _window.TryMap(reading.Number, 0, 0, Page, false));
        Assert.Equal("r--s", Maps()[0].Access);
        Assert.True(Assert.Single(_slots.Mapped).Value.ReadOnly);
        _window.Behind.Store(0, 5);
        Assert.Equal((100UL, 100UL), (_window.Behind.Load(0), _file.Get(0)));
        Assert.Equal((1L, 0L), (_window.Counters.ReadOnlyWrites, _window.Counters.HoleWrites));
        // A descriptor for both, mapped read-only, is no less so.
        Assert.Equal(0, _window.TryMap(_file.Fd, 0, Page, Page, false));
        _window.Behind.Store(Page, 5);
        Assert.Equal((100UL, 2L), (_file.Get(0), _window.Counters.ReadOnlyWrites));
        using FileDescriptor writing = _file.Reopen(O_WRONLY);
        Assert.Equal(EACCES, _window.TryMap(writing.Number, 0, 2 * Page, Page, false));
    }

    [Fact]
    public void No_ftruncate_the_file_stays_as_it_is()
    {
        using var empty = new TestFile(0);
        Assert.Equal(ENXIO, _window.TryMap(empty.Fd, 0, 0, Page, true));
        Assert.Equal(0, empty.Length);
        _file.SetLength(100);
        Assert.Equal(ENXIO, Map(0, 0, 1));
        Assert.Equal(100, _file.Length);
    }

    [Fact]
    public void The_descriptor_stays_the_callers_and_may_be_closed()
    {
        using FileDescriptor again = _file.Reopen(O_RDWR);
        Assert.Equal(0, _window.TryMap(again.Number, Page, 0, Page, true));
        again.Dispose();
        Assert.Equal(101UL, _window.Behind.Load(0));
        Assert.Equal(0, _window.TryUnmap(0, Page));
    }

    [Fact]
    public void A_refused_slot_puts_the_reservation_back()
    {
        _slots.Refuses = _ => true;
        Assert.Equal(ENOMEM, Map(0, 4, 4));
        Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
        Assert.Equal((0, 0, 1L), (_window.Count, _quota.Taken, _window.Counters.Refused));
        _slots.Refuses = _ => false;
        Assert.Equal(0, Map(0, 4, 4));
    }

    [Fact]
    public void Without_a_place_there_are_no_slots_and_the_mappings_stay()
    {
        Assert.Equal(0, Map(0, 4, 1));
        _window.Place(null);
        Assert.Empty(_slots.Mapped);
        Assert.Equal(0, Map(1, 6, 1));
        Assert.Empty(_slots.Mapped);
        _window.Place(2 * Place);
        Assert.Equal([(2 * Place) + (4 * Page), (2 * Place) + (6 * Page)], Places());
        _window.Place(2 * Place);
        Assert.Equal((2, 0), (_window.Count, _slots.Moves));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(-1)]
    [InlineData(3)]
    [InlineData(-2)]
    public void A_move_by_less_than_the_window_moves_no_mapping_onto_another(int pages)
    {
        for (ulong i = 4; i < 8; i++)
            Assert.Equal(0, Map(i, i, 1));
        ulong to = Place + unchecked((ulong)(pages * TestFile.Page));
        _window.Place(to);
        Assert.Equal([to + (4 * Page), to + (5 * Page), to + (6 * Page), to + (7 * Page)], Places());
        Assert.Equal(4, _slots.Moves);
    }

    [Fact]
    public void A_mapping_whose_move_is_refused_is_reached_by_exits_and_comes_back()
    {
        for (ulong i = 0; i < 3; i++)
            Assert.Equal(0, Map(i, 2 * i, 1));
        _slots.Refuses = range => range.Start == (2 * Place) + (2 * Page);
        _window.Place(2 * Place);
        Assert.Equal([2 * Place, (2 * Place) + (4 * Page)], Places());
        Assert.Equal((3, 101UL), (_window.Count, _window.Behind.Load(2 * Page)));
        Assert.Single(_log, line => line.Contains("directly", StringComparison.Ordinal));
        _window.Place(Place);
        Assert.Equal([Place, Place + (2 * Page), Place + (4 * Page)], Places());
        Assert.Equal(0, _window.TryUnmap(2 * Page, Page));
        Assert.Equal([Place, Place + (4 * Page)], Places());
    }

    [Fact]
    public void Unmap_all_leaves_a_window_that_can_be_mapped_again()
    {
        for (int round = 0; round < 3; round++)
        {
            for (ulong i = 0; i < 4; i++)
                Assert.Equal(0, Map(i, 3 * i, 2));
            _window.UnmapAll();
            Assert.Equal((0, 0UL, 0, 0), (_window.Count, _window.MappedBytes, _quota.Taken, HostMap.CountOf(_file)));
            Assert.Empty(_slots.Mapped);
            Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
        }
        Assert.Equal((12L, 12L), (_window.Counters.Maps, _window.Counters.Unmaps));
    }

    [Fact]
    public void After_its_end_nothing_is_mapped_and_nothing_is_touched()
    {
        Assert.Equal(0, Map(0, 0, 2));
        _window.Dispose();
        _window.Dispose();
        Assert.Equal(ENODEV, Map(0, 0, 1));
        Assert.Equal(ENOENT, _window.TryUnmap(0, 2 * Page));
        _window.UnmapAll();
        _window.Place(Place);
        Assert.Equal(ulong.MaxValue, _window.Behind.Load(0));
        _window.Behind.Store(0, 1);
        Assert.Equal(100UL, _file.Get(0));
        Assert.Equal(GuestFaultAnswer.NotHere, _window.Resolve());
    }

    [Fact]
    public void An_access_outside_or_across_the_end_gives_ones()
    {
        Assert.Equal(0, Map(0, 63, 1));
        Assert.Equal(ulong.MaxValue, _window.Behind.Load(Length - 4));
        Assert.Equal(ulong.MaxValue, _window.Behind.Load(Length));
        Assert.Equal(ulong.MaxValue, _window.Behind.Load(ulong.MaxValue));
        // Half of it mapped: that half is the file's.
        Assert.Equal(0, Map(1, 0, 1));
        _file.Put(TestFile.Page + 4088, 0x1122_3344_5566_7788);
        Assert.Equal(0xFFFF_FFFF_1122_3344, _window.Behind.Load(Page - 4));
    }

    [Fact]
    public void A_truncated_file_is_withdrawn_to_what_is_left()
    {
        Assert.Equal(0, Map(0, 4, 8));
        Assert.Equal(GuestFaultAnswer.Unexplained, _window.Resolve());
        _file.SetLength(3 * TestFile.Page);
        Assert.Equal(GuestFaultAnswer.Resolved, _window.Resolve());
        Assert.Equal(new AddressRange(Place + (4 * Page), 3 * Page), Assert.Single(_slots.Mapped).Value.Range);
        Assert.Equal((102UL, ulong.MaxValue), (_window.Behind.Load(6 * Page), _window.Behind.Load(7 * Page)));
        Assert.Equal(GuestFaultAnswer.Unexplained, _window.Resolve());
        _file.SetLength(0);
        Assert.Equal(GuestFaultAnswer.Resolved, _window.Resolve());
        Assert.Empty(_slots.Mapped);
        Assert.Equal((2L, 1L), (_window.Counters.Truncations, _window.Counters.HoleReads));
        Assert.Single(_log, line => line.Contains("truncated", StringComparison.Ordinal));
        // It counts as mapped, and is moved and unmapped as before.
        _window.Place(2 * Place);
        Assert.Empty(_slots.Mapped);
        using var other = new TestFile(1);
        Assert.Equal(EEXIST, _window.TryMap(other.Fd, 0, 11 * Page, Page, true));
        Assert.Equal(0, _window.TryUnmap(4 * Page, 8 * Page));
        Assert.Equal([new HostMap(0, Length, "---p", 0, "")], Maps());
    }

    [Fact]
    public void What_is_given_up_is_reached_by_exits_only_until_it_is_mapped_again()
    {
        using var sealedFile = new TestFile(2, seals: F_SEAL_SHRINK);
        Assert.False(_window.GiveUp());
        Assert.Equal(0, _window.TryMap(sealedFile.Fd, 0, 0, 2 * Page, true));
        Assert.Equal(0, Map(0, 4, 1));
        Assert.True(_window.GiveUp());
        Assert.Empty(_slots.Mapped);
        Assert.False(_window.GiveUp());
        Assert.Equal(100UL, _window.Behind.Load(4 * Page));
        Assert.Single(_log, line => line.Contains("the host cannot give the guest a page", StringComparison.Ordinal));
        Assert.Equal(0, _window.TryUnmap(4 * Page, Page));
        Assert.Equal(0, Map(0, 4, 1));
        Assert.Single(_slots.Mapped);
    }

    [Fact]
    public void A_file_that_cannot_shrink_is_not_suspected()
    {
        using var sealedFile = new TestFile(2, seals: F_SEAL_SHRINK);
        Assert.Equal(0, _window.TryMap(sealedFile.Fd, 0, 0, 2 * Page, true));
        Assert.Equal(GuestFaultAnswer.NotHere, _window.Resolve());
        Assert.Equal(0, Map(0, 4, 1));
        Assert.Equal(GuestFaultAnswer.Unexplained, _window.Resolve());
    }

    [Fact]
    public void Trouble_is_told_once_however_often_it_happens()
    {
        for (int i = 0; i < 1000; i++)
            _window.Behind.Load(0);
        Assert.Equal("the guest reads shared memory 3 where nothing is mapped: it gets ones", Assert.Single(_log));
        Assert.Equal(1000, _window.Counters.HoleReads);
    }

    [Fact]
    public void A_window_that_the_address_space_has_no_room_for_is_an_error()
    {
        foreach (ulong length in new[] { 1UL << 47, 1UL << 56, 1UL << 63, ulong.MaxValue & ~0xFFFUL })
            Assert.Equal(VmmErrorKind.Host, Assert.Throws<VmmException>(() => new SharedMemoryWindow(0, length, _slots, _quota)).Kind);
        Assert.Throws<ArgumentException>(() => new SharedMemoryWindow(0, 4097, _slots, _quota));
        // Much more than there is memory is no trouble: it costs nothing.
        using var huge = new SharedMemoryWindow(0, 1UL << 40, _slots, _quota);
        Assert.Equal(0, huge.TryMap(_file.Fd, 0, (1UL << 40) - Page, Page, true));
        Assert.Equal(100UL, huge.Behind.Load((1UL << 40) - Page));
    }

    private int Map(ulong filePage, ulong page, ulong pages) => _window.TryMap(_file.Fd, filePage * Page, page * Page, pages * Page, true);

    private List<HostMap> Maps() => HostMap.In(_window.HostAddress, Length);

    private List<ulong> Places() => [.. _slots.Mapped.Values.Select(m => m.Range.Start).Order()];
}
