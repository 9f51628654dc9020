using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Memory;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>Random requests against a list that is searched from end to end: answers, slots and this process's mappings must be what it says.</summary>
public sealed class SharedMemoryWindowModelTests
{
    private const ulong Page = TestFile.Page;
    private const int Pages = 24;
    private const int FilePages = 8;
    private const int Limit = 10;

    private enum Do
    {
        Map,
        Unmap,
        UnmapExisting,
        Place,
        UnmapAll,
        Truncate,
    }

    private readonly record struct Step(Do Do, int Page, int Length, int FilePage, bool Writable, bool Odd, int Refused)
    {
        public ulong Bytes => ((ulong)Length * TestFile.Page) - (Odd && Length > 0 ? 100UL : 0);
    }

    private sealed record Entry(ulong Offset, ulong Length, ulong Mapped, bool Writable, int FilePage)
    {
        public ulong Shown { get; set; } = Mapped;
    }

    [Fact]
    public void It_does_what_a_list_does()
    {
        Gen<Step> step =
            from what in Gen.Frequency(
                (8, Gen.Constant(Do.Map)), (2, Gen.Constant(Do.Unmap)), (4, Gen.Constant(Do.UnmapExisting)), (2, Gen.Constant(Do.Place)),
                (1, Gen.Constant(Do.UnmapAll)), (1, Gen.Constant(Do.Truncate)))
            from page in Gen.Frequency((9, Gen.Choose(0, Pages - 1)), (1, Gen.Elements(-1, Pages, Pages + 3)))
            from length in Gen.Frequency((9, Gen.Choose(1, 4)), (1, Gen.Elements(0, 9, Pages, Pages + 1)))
            from filePage in Gen.Choose(0, FilePages)
            from writable in Gen.Elements(true, false)
            from odd in Gen.Frequency((3, Gen.Constant(false)), (1, Gen.Constant(true)))
            from refused in Gen.Frequency((5, Gen.Constant(-1)), (1, Gen.Choose(0, Pages - 1)))
            select new Step(what, page, length, filePage, writable, odd, refused);
        Check.One(
            Config.QuickThrowOnFailure.WithMaxTest(200).WithEndSize(60),
            Prop.ForAll(Arb.From(step.ListOf()), steps => new Run().Do([.. steps])));
    }

    private sealed class Run
    {
        private readonly FakeSlots _slots = new();
        private readonly List<Entry> _model = [];
        private ulong? _place;
        private int _filePages = FilePages;

        public void Do(IReadOnlyList<Step> steps)
        {
            using var file = new TestFile(FilePages, 1000);
            SharedMemoryQuota machine = SharedMemoryQuota.ForMachine();
            SharedMemoryQuota quota = machine.ForDevice(Limit);
            using var window = new SharedMemoryWindow(0, Pages * Page, _slots, quota);
            foreach (Step step in steps)
            {
                _slots.Refuses = range => step.Refused >= 0 && _place is { } at && range.Start == at + ((ulong)step.Refused * Page);
                switch (step.Do)
                {
                    case SharedMemoryWindowModelTests.Do.Map:
                        Map(window, file, step);
                        break;
                    case SharedMemoryWindowModelTests.Do.UnmapExisting when _model.Count > 0:
                        Entry entry = _model[step.FilePage % _model.Count];
                        Assert.Equal(0, window.TryUnmap(entry.Offset, entry.Length));
                        _model.Remove(entry);
                        break;
                    case SharedMemoryWindowModelTests.Do.Unmap:
                        Unmap(window, step);
                        break;
                    case SharedMemoryWindowModelTests.Do.Place:
                        _slots.Refuses = _ => false;
                        _place = step.Writable ? (1UL << 32) + ((ulong)step.Length * Page) : null;
                        window.Place(_place);
                        break;
                    case SharedMemoryWindowModelTests.Do.UnmapAll:
                        window.UnmapAll();
                        _model.Clear();
                        break;
                    case SharedMemoryWindowModelTests.Do.Truncate:
                        Truncate(window, file, step);
                        break;
                }
                Compare(window, file);
                Assert.Equal((_model.Count, _model.Count), (quota.Taken, machine.Taken));
            }
            window.Dispose();
            Assert.Empty(_slots.Mapped);
            Assert.Equal((0, 0, 0), (HostMap.CountOf(file), quota.Taken, machine.Taken));
        }

        private void Map(SharedMemoryWindow window, TestFile file, Step step)
        {
            ulong offset = unchecked((ulong)step.Page * Page), fdOffset = (ulong)step.FilePage * Page;
            ulong mapped = (ulong)step.Length * Page;
            bool outside = step.Page < 0 || step.Page >= Pages || step.Length == 0 || step.Page + step.Length > Pages;
            int expected =
                outside ? EINVAL
                : fdOffset + step.Bytes > (ulong)_filePages * Page ? ENXIO
                : _model.Exists(e => e.Offset < offset + mapped && offset < e.Offset + e.Mapped) ? EEXIST
                : _model.Count == Limit ? ENOSPC
                : _place is { } && step.Refused == step.Page ? ENOMEM
                : 0;
            Assert.Equal(expected, window.TryMap(file.Fd, fdOffset, offset, step.Bytes, step.Writable));
            if (expected == 0)
                _model.Add(new Entry(offset, step.Bytes, mapped, step.Writable, step.FilePage));
        }

        private void Unmap(SharedMemoryWindow window, Step step)
        {
            ulong offset = unchecked((ulong)step.Page * Page);
            bool outside = step.Page < 0 || step.Page >= Pages || step.Length == 0 || step.Page + step.Length > Pages;
            Entry? exact = _model.Find(e => e.Offset == offset && e.Length == step.Bytes);
            bool touches = _model.Exists(e => e.Offset < offset + step.Bytes && offset < e.Offset + e.Mapped);
            Assert.Equal(exact != null ? 0 : outside || touches ? EINVAL : ENOENT, window.TryUnmap(offset, step.Bytes));
            if (exact != null)
                _model.Remove(exact);
        }

        private void Truncate(SharedMemoryWindow window, TestFile file, Step step)
        {
            _slots.Refuses = _ => false;
            _filePages = step.FilePage;
            file.SetLength(_filePages * TestFile.Page);
            bool placed = _place != null;
            bool any = _model.Count > 0, lost = false;
            foreach (Entry entry in _model)
            {
                ulong left = (ulong)Math.Max(0, _filePages - entry.FilePage) * Page;
                if (placed && left < entry.Shown)
                {
                    entry.Shown = left;
                    lost = true;
                }
            }
            Assert.Equal(lost ? GuestFaultAnswer.Resolved : any ? GuestFaultAnswer.Unexplained : GuestFaultAnswer.NotHere, window.Resolve());
        }

        private void Compare(SharedMemoryWindow window, TestFile file)
        {
            _model.Sort((a, b) => a.Offset.CompareTo(b.Offset));
            Assert.Equal((_model.Count, (ulong)_model.Sum(e => (long)e.Mapped)), (window.Count, window.MappedBytes));
            Assert.Equal(
                _place is { } at ? _model.Where(e => e.Shown > 0).Select(e => (new AddressRange(at + e.Offset, e.Shown), !e.Writable)) : [],
                _slots.Mapped.Values.OrderBy(m => m.Range.Start).Select(m => (m.Range, m.ReadOnly)));
            List<HostMap> expected = [];
            ulong end = 0;
            foreach (Entry entry in _model)
            {
                if (entry.Offset > end)
                    expected.Add(new HostMap(end, entry.Offset, "---p", 0, ""));
                end = entry.Offset + entry.Mapped;
                AddFile(expected, new HostMap(entry.Offset, end, entry.Writable ? "rw-s" : "r--s", (ulong)entry.FilePage * Page, $"/memfd:{file.Name} (deleted)"));
            }
            if (end < Pages * Page)
                expected.Add(new HostMap(end, Pages * Page, "---p", 0, ""));
            Assert.Equal(expected, HostMap.In(window.HostAddress, window.Length));
        }

        // The kernel joins what continues the same file.
        private static void AddFile(List<HostMap> maps, HostMap next)
        {
            if (maps.Count > 0 && maps[^1] is var last && last.End == next.Start && last.Access == next.Access && last.Path == next.Path
                && last.Offset + (last.End - last.Start) == next.Offset)
            {
                maps[^1] = last with { End = next.End };
            }
            else
            {
                maps.Add(next);
            }
        }
    }
}
