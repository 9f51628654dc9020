using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Bus;

namespace Vmm.Core.Tests.Bus;

/// <summary>The bus against a naive list of ranges.</summary>
public sealed class AddressBusTests
{
    private const int Space = 64;

    [Fact]
    public void It_answers_as_a_list_of_ranges_does()
    {
        Gen<(int Kind, int Start, int Length)> steps =
            from kind in Gen.Choose(0, 3)
            from start in Gen.Choose(0, Space - 1)
            from length in Gen.Choose(0, 12)
            select (kind, start, length);
        // Low, and against the top of the address space, where sums wrap around.
        foreach (ulong origin in new[] { 0UL, ulong.MaxValue - Space + 1 })
        {
            Prop.ForAll(steps.ListOf().ToArbitrary(), list =>
            {
                var bus = new AddressBus("test");
                var model = new SortedDictionary<ulong, Entry>();
                foreach ((int kind, int start, int length) in list)
                {
                    Step(bus, model, origin, kind, start, length);
                    if (!SameEverywhere(bus, model, origin))
                        return false;
                }
                return true;
            }).Check(Config.QuickThrowOnFailure.WithMaxTest(100).WithReplay(20261121, 3));
        }
    }

    [Fact]
    public void Ranges_that_overlap_are_refused_and_leave_the_bus_as_it_was()
    {
        var bus = new AddressBus("MMIO");
        bus.Add(0x1000, 0x100, new Recorder(), "first");
        bus.Add(0x2000, 0x100, new Recorder(), "second");
        foreach ((ulong start, ulong length) in new[] { (0x1000UL, 0x100UL), (0xFFFUL, 2UL), (0x10FFUL, 1UL), (0x1010UL, 1UL), (0x800UL, 0x10000UL), (0x10FFUL, 0x1000UL), (0UL, ulong.MaxValue) })
        {
            VmmException error = Assert.Throws<VmmException>(() => bus.Add(start, length, new Recorder(), "intruder"));
            Assert.Contains("intruder", error.Message, StringComparison.Ordinal);
            Assert.Contains("MMIO", error.Message, StringComparison.Ordinal);
        }
        foreach ((ulong start, ulong length) in new[] { (0x3000UL, 0UL), (ulong.MaxValue, 2UL), (2UL, ulong.MaxValue) })
            Assert.Throws<VmmException>(() => bus.Add(start, length, new Recorder(), "wraps"));
        Assert.Equal(new[] { (0x1000UL, 0x10FFUL, "first"), (0x2000UL, 0x20FFUL, "second") }, bus.Ranges);
        bus.Add(0x1100, 0xF00, new Recorder(), "between");
        Assert.Equal(3, bus.Ranges.Count);
    }

    [Fact]
    public void An_access_that_nobody_holds_wholly_reads_ones_is_dropped_and_counted()
    {
        var bus = new AddressBus("port");
        var device = new Recorder();
        bus.Add(0x10, 4, device, "device");
        byte[] data = new byte[4];
        bus.Read(0x12, data);
        Assert.Equal(new byte[] { 0xFF, 0xFF, 0xFF, 0xFF }, data);
        bus.Write(0x13, data.AsSpan(0, 2));
        bus.Read(0x0E, data);
        bus.Read(ulong.MaxValue, data);
        bus.Write(ulong.MaxValue - 1, data);
        Assert.Equal(5, bus.Unclaimed);
        Assert.Equal(0, device.Reads + device.Writes);
        bus.Read(0x10, data);
        Assert.Equal(1, device.Reads);
    }

    [Fact]
    public void Readers_see_whole_ranges_while_others_come_and_go()
    {
        var bus = new AddressBus("MMIO");
        var steady = new Recorder();
        bus.Add(0x5000, 0x10, steady, "steady");
        using var stop = new ManualResetEventSlim();
        long wrong = 0, reads = 0;
        Thread[] readers = [.. Enumerable.Range(0, 2).Select(n => new Thread(() =>
        {
            byte[] data = new byte[8];
            while (!stop.IsSet)
            {
                // The one that stays is always found, at its own offset.
                if (!bus.TryFind(0x5008, 8, out IBusDevice? device, out ulong offset) || device != steady || offset != 8)
                    Interlocked.Increment(ref wrong);
                // One that comes and goes is found with its own offset, or not at all.
                ulong at = 0x1000 + (ulong)(reads % 64 * 0x100) + 4;
                if (bus.TryFind(at, 4, out device, out offset) && (((Recorder)device).Start != at - 4 || offset != 4))
                    Interlocked.Increment(ref wrong);
                bus.Read(at, data.AsSpan(0, 4));
                Interlocked.Increment(ref reads);
            }
        }))];
        foreach (Thread reader in readers)
            reader.Start();
        Thread[] writers = [.. Enumerable.Range(0, 2).Select(n => new Thread(() =>
        {
            var random = new Random(7 + n);
            for (int i = 0; i < 20_000; i++)
            {
                // Each writer has its own addresses, so that neither overlaps the other.
                ulong start = 0x1000 + ((ulong)((random.Next(16) * 2) + n) * 0x100);
                if (!bus.Remove(start))
                    bus.Add(start, 0x80, new Recorder { Start = start }, "passing");
            }
        }))];
        foreach (Thread writer in writers)
            writer.Start();
        foreach (Thread writer in writers)
            writer.Join();
        stop.Set();
        foreach (Thread reader in readers)
            reader.Join();
        Assert.Equal(0, wrong);
        Assert.True(reads > 0);
        IReadOnlyList<(ulong Start, ulong Last, string Name)> left = bus.Ranges;
        for (int i = 1; i < left.Count; i++)
            Assert.True(left[i - 1].Last < left[i].Start);
    }

    [Fact]
    public void An_access_allocates_nothing()
    {
        var bus = new AddressBus("MMIO");
        for (ulong i = 0; i < 32; i++)
            bus.Add(0x1000 * (i + 1), 0x100, new Recorder(), "device");
        Span<byte> data = stackalloc byte[4];
        bus.Read(0x3000, data);
        bus.Write(0x3000, data);
        bus.Read(0x50, data);
        long before = ThreadAllocations.Start();
        for (int i = 0; i < 10_000; i++)
        {
            bus.Read(0x3000, data);
            bus.Write(0x2004, data);
            bus.Read(0x50, data);
        }
        Assert.Equal(0, ThreadAllocations.Since(before));
    }

    private static void Step(AddressBus bus, SortedDictionary<ulong, Entry> model, ulong origin, int kind, int start, int length)
    {
        ulong at = origin + (ulong)start;
        if (kind == 0)
        {
            Assert.Equal(model.Remove(at), bus.Remove(at));
            return;
        }
        bool allowed = length > 0 && at <= ulong.MaxValue - (ulong)(length - 1) && !model.Values.Any(e => e.Start <= at + (ulong)(length - 1) && at <= e.Last);
        var device = new Recorder();
        if (allowed)
        {
            bus.Add(at, (ulong)length, device, "x");
            model.Add(at, new Entry(at, at + (ulong)(length - 1), device));
        }
        else
        {
            Assert.Throws<VmmException>(() => bus.Add(at, (ulong)length, device, "x"));
        }
    }

    private static bool SameEverywhere(AddressBus bus, SortedDictionary<ulong, Entry> model, ulong origin)
    {
        for (int i = -2; i < Space + 2; i++)
        {
            ulong at = origin + (ulong)(long)i;
            for (int size = 1; size <= 8; size++)
            {
                Entry? wanted = model.Values.FirstOrDefault(e => e.Start <= at && at <= e.Last && e.Last - at >= (ulong)(size - 1));
                bool found = bus.TryFind(at, size, out IBusDevice? device, out ulong offset);
                if (found != (wanted != null) || (wanted != null && (device != wanted.Device || offset != at - wanted.Start)))
                    return false;
            }
        }
        return bus.Ranges.Select(r => (r.Start, r.Last)).SequenceEqual(model.Values.Select(e => (e.Start, e.Last)));
    }

    private sealed record Entry(ulong Start, ulong Last, IBusDevice Device);

    private sealed class Recorder : IBusDevice
    {
        public ulong Start { get; init; }

        public int Reads { get; private set; }

        public int Writes { get; private set; }

        public void Read(ulong offset, Span<byte> data)
        {
            Reads++;
            data.Fill((byte)offset);
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data) => Writes++;
    }
}
