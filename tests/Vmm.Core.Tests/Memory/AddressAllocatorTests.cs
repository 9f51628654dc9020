using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Memory;

public sealed class AddressAllocatorTests
{
    private static readonly Config Fixed = Config.QuickThrowOnFailure.WithMaxTest(1000).WithReplay(0x5eed_0002, 0x9e37_79b9_7f4a_7c15);

    // Small windows at the bottom, in the middle and at the very top of the address space, so that pieces collide and edges are met.
    private static readonly Gen<AddressRange> Windows =
        from start in Gen.Elements(0UL, 5UL, 0xD000_0000UL, (1UL << 40) + 3, ulong.MaxValue - 255, ulong.MaxValue - 300)
        from length in Gen.Choose(0, 256)
        select new AddressRange(start, (ulong)length);

    private enum Kind
    {
        Allocate,
        AllocateAt,
        Free,
    }

    private sealed record Step(Kind Kind, ulong Size, int AlignmentBits, int Place);

    private static readonly Gen<Step[]> Steps =
        (from kind in Gen.Elements(Kind.Allocate, Kind.Allocate, Kind.AllocateAt, Kind.Free)
         from size in Gen.Choose(0, 70)
         from alignment in Gen.Choose(0, 6)
         from place in Gen.Choose(-4, 260)
         select new Step(kind, (ulong)size, alignment, place)).ArrayOf();

    private static readonly Arbitrary<(AddressRange Window, Step[] Steps)> Cases =
        (from window in Windows from steps in Steps select (window, steps)).ToArbitrary();

    /// <summary>Every answer is compared with a model that remembers each address of the window by itself.</summary>
    [Fact]
    public void It_agrees_with_a_byte_map() => Check.One(Fixed, Prop.ForAll(Cases, c =>
    {
        AddressAllocator allocator = new(c.Window);
        bool[] taken = new bool[c.Window.Length];
        Dictionary<ulong, ulong> pieces = [];
        foreach (Step step in c.Steps)
        {
            ulong alignment = 1UL << step.AlignmentBits;
            ulong at = unchecked(c.Window.Start + (ulong)step.Place);
            switch (step.Kind)
            {
                case Kind.Allocate:
                    ulong? expected = LowestFit(c.Window, taken, step.Size, alignment);
                    if (allocator.TryAllocate(step.Size, alignment, out ulong address) != expected.HasValue || (expected ?? 0) != address)
                        return false;
                    if (expected.HasValue)
                        Take(address, step.Size);
                    break;
                case Kind.AllocateAt:
                    bool free = step.Size != 0 && step.Place >= 0 && (ulong)step.Place + step.Size <= c.Window.Length
                        && !taken.AsSpan(step.Place, (int)step.Size).Contains(true);
                    if (allocator.TryAllocateAt(at, step.Size) != free)
                        return false;
                    if (free)
                        Take(at, step.Size);
                    break;
                default:
                    // A piece that is there, or (with no pieces) an address that is not one.
                    ulong victim = pieces.Count == 0 ? at : pieces.Keys.Order().ElementAt((step.Place + 4) % pieces.Count);
                    if (allocator.TryFree(victim) != pieces.Remove(victim, out ulong length))
                        return false;
                    taken.AsSpan(length == 0 ? 0 : (int)(victim - c.Window.Start), (int)length).Clear();
                    break;
            }
            if (!IsSound(allocator, pieces))
                return false;
        }
        return true;

        void Take(ulong start, ulong size)
        {
            taken.AsSpan((int)(start - c.Window.Start), (int)size).Fill(true);
            pieces.Add(start, size);
        }
    }));

    [Fact]
    public void Freeing_what_was_just_allocated_changes_nothing() => Check.One(Fixed, Prop.ForAll(Cases, c =>
    {
        AddressAllocator allocator = new(c.Window);
        foreach (Step step in c.Steps)
        {
            AddressRange[] before = [.. allocator.Allocations];
            if (!allocator.TryAllocate(step.Size, 1UL << step.AlignmentBits, out ulong first))
                continue;
            if (!allocator.TryFree(first) || !before.SequenceEqual(allocator.Allocations))
                return false;
            if (!allocator.TryAllocate(step.Size, 1UL << step.AlignmentBits, out ulong second) || second != first)
                return false;
        }
        return true;
    }));

    [Fact]
    public void An_exhausted_window_refuses_until_something_is_freed()
    {
        AddressAllocator allocator = new(new AddressRange(0x1000, 0x3000));
        for (ulong expected = 0x1000; expected < 0x4000; expected += 0x1000)
        {
            Assert.True(allocator.TryAllocate(0x1000, 0x1000, out ulong address));
            Assert.Equal(expected, address);
        }
        Assert.Equal(0UL, allocator.FreeBytes);
        Assert.False(allocator.TryAllocate(1, 1, out _));
        Assert.True(allocator.TryFree(0x2000));
        Assert.False(allocator.TryFree(0x2000));
        Assert.False(allocator.TryFree(0x1800));
        Assert.True(allocator.TryAllocate(0x1000, 0x1000, out ulong again));
        Assert.Equal(0x2000UL, again);
    }

    [Fact]
    public void Sizes_and_places_that_wrap_around_are_refused()
    {
        AddressAllocator allocator = new(new AddressRange(ulong.MaxValue - 0xFFF, 0x1000));
        Assert.False(allocator.TryAllocate(ulong.MaxValue, 1, out _));
        Assert.False(allocator.TryAllocateAt(ulong.MaxValue, 2));
        Assert.False(allocator.TryAllocateAt(ulong.MaxValue - 0xFFF, ulong.MaxValue));
        Assert.False(allocator.TryAllocate(1, 1UL << 63, out _));
        Assert.True(allocator.TryAllocateAt(ulong.MaxValue, 1));
        Assert.True(allocator.TryAllocate(0xFFF, 1, out ulong rest));
        Assert.Equal(ulong.MaxValue - 0xFFF, rest);
        Assert.False(allocator.TryAllocate(1, 1, out _));
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(3UL)]
    [InlineData(ulong.MaxValue)]
    public void An_alignment_that_is_no_power_of_two_is_a_mistake_of_the_caller(ulong alignment) =>
        Assert.Throws<ArgumentException>(() => new AddressAllocator(new AddressRange(0, 10)).TryAllocate(1, alignment, out _));

    [Fact]
    public void A_window_that_wraps_around_is_a_mistake_of_the_caller() =>
        Assert.Throws<ArgumentException>(() => new AddressAllocator(new AddressRange(ulong.MaxValue, 2)));

    private static ulong? LowestFit(AddressRange window, bool[] taken, ulong size, ulong alignment)
    {
        for (ulong offset = 0; size != 0 && offset + size <= window.Length; offset++)
        {
            if ((window.Start + offset) % alignment == 0 && !taken.AsSpan((int)offset, (int)size).Contains(true))
                return window.Start + offset;
        }
        return null;
    }

    private static bool IsSound(AddressAllocator allocator, Dictionary<ulong, ulong> pieces)
    {
        AddressRange[] ranges = [.. allocator.Allocations];
        for (int i = 0; i < ranges.Length; i++)
        {
            if (!allocator.Window.Contains(ranges[i].Start, ranges[i].Length)
                || (i > 0 && ranges[i].Overlaps(ranges[i - 1]))
                || pieces.GetValueOrDefault(ranges[i].Start) != ranges[i].Length)
                return false;
        }
        return ranges.Length == pieces.Count
            && allocator.FreeBytes == allocator.Window.Length - pieces.Values.Aggregate(0UL, (a, b) => a + b);
    }
}
