using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.Devices.Mem;

namespace Vmm.Virtio.Tests.Devices.Mem;

public sealed class BlockBitmapTests
{
    [Fact]
    public void It_is_what_an_array_of_bools_is()
    {
        Gen<(int Count, (int First, int Length, bool Value)[] Fills)> cases =
            from count in Gen.Choose(1, 300)
            from fills in
                (from first in Gen.Choose(0, count)
                 from length in Gen.Choose(0, count - first)
                 from value in Gen.Elements(true, false)
                 select (first, length, value)).ArrayOf()
            select (count, fills);
        Prop.ForAll(cases.ToArbitrary(), test =>
        {
            var bitmap = new BlockBitmap(test.Count);
            bool[] model = new bool[test.Count];
            foreach ((int first, int length, bool value) in test.Fills)
            {
                bitmap.Fill(first, length, value);
                model.AsSpan(first, length).Fill(value);
                if (bitmap.CountSet(first, length) != (value ? length : 0)
                    || bitmap.CountSet(0, test.Count) != model.Count(b => b)
                    || bitmap.CountSet(first, test.Count - first) != model.Skip(first).Count(b => b))
                    return false;
            }
            var copy = new BlockBitmap(test.Count);
            return copy.TryLoad(bitmap.Words) && copy.CountSet(0, test.Count) == model.Count(b => b);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));
    }

    [Fact]
    public void Words_of_another_length_or_with_more_bits_are_refused()
    {
        var bitmap = new BlockBitmap(65);
        Assert.False(bitmap.TryLoad([1]));
        Assert.False(bitmap.TryLoad([1, 1, 0]));
        Assert.False(bitmap.TryLoad([1, 2]));
        Assert.True(bitmap.TryLoad([1, 1]));
        Assert.Equal(2, bitmap.CountSet(0, 65));
        Assert.True(new BlockBitmap(64).TryLoad([ulong.MaxValue]));
    }
}
