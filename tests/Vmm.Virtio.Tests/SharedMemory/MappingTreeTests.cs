using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>The tree against a sorted list, and its depth.</summary>
public sealed class MappingTreeTests
{
    private readonly FakeSlots _slots = new();

    [Fact]
    public void It_finds_what_a_sorted_list_finds()
    {
        Gen<(bool Add, int At)> step = from add in Gen.Frequency((3, Gen.Constant(true)), (2, Gen.Constant(false))) from at in Gen.Choose(0, 60) select (add, at);
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(300), Prop.ForAll(Arb.From(step.ListOf()), steps =>
        {
            var tree = new MappingTree();
            var list = new SortedList<ulong, WindowMapping>();
            foreach ((bool add, int at) in steps)
            {
                ulong offset = (ulong)at * 2;
                if (add && !list.ContainsKey(offset))
                {
                    // One page, and a hole of one after it.
                    WindowMapping mapping = Make(offset, 1);
                    tree.Add(mapping);
                    list.Add(offset, mapping);
                }
                else if (!add && list.Remove(offset, out WindowMapping? mapping))
                {
                    tree.Remove(mapping);
                }
                Assert.Equal(list.Count, tree.Count);
                for (ulong probe = 0; probe < 130; probe++)
                {
                    Assert.Same(list.Values.LastOrDefault(m => m.Offset <= probe), tree.AtOrBelow(probe));
                    Assert.Same(list.Values.FirstOrDefault(m => m.Offset >= probe), tree.AtOrAbove(probe));
                    Assert.Same(list.Values.LastOrDefault(m => m.Offset < probe + 3 && m.End > probe), tree.Overlapping(probe, probe + 3));
                }
                List<ulong> up = [], down = [];
                tree.ForEach(false, up, static (m, to) => to.Add(m.Offset));
                tree.ForEach(true, down, static (m, to) => to.Add(m.Offset));
                Assert.Equal(list.Keys, up);
                Assert.Equal(list.Keys.Reverse(), down);
            }
        }));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void It_stays_flat_whatever_the_order(bool descending)
    {
        const int count = 20_000;
        var tree = new MappingTree();
        var all = new WindowMapping[count];
        for (int i = 0; i < count; i++)
            tree.Add(all[i] = Make((ulong)(descending ? count - i : i), 1));
        Assert.InRange(Depth(all), 15, 80);
        for (int i = 0; i < count; i++)
        {
            if (i % 2 == 0)
                tree.Remove(all[i]);
        }
        Assert.Equal(count / 2, tree.Count);
        tree.Clear();
        Assert.Null(tree.AtOrBelow(ulong.MaxValue));
    }

    private static int Depth(WindowMapping[] all)
    {
        // The root is nobody's child.
        var children = new HashSet<WindowMapping>();
        foreach (WindowMapping mapping in all)
        {
            if (mapping.Left != null)
                children.Add(mapping.Left);
            if (mapping.Right != null)
                children.Add(mapping.Right);
        }
        int depth = 0;
        List<WindowMapping> level = [Assert.Single(all, m => !children.Contains(m))];
        for (; level.Count > 0; depth++)
            level = [.. level.SelectMany(m => new[] { m.Left, m.Right }).OfType<WindowMapping>()];
        return depth;
    }

    private WindowMapping Make(ulong offset, ulong length) => new(_slots, 0, offset, length, length, false);
}
