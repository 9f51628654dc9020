using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.Devices.Balloon;

namespace Vmm.Virtio.Tests.Devices.Balloon;

/// <summary>Messages with statistics.</summary>
public sealed class BalloonStatisticsTests
{
    [Fact]
    public void Any_message_is_read_as_a_dictionary_would()
    {
        Gen<(ushort Tag, ulong Value)> entries =
            from tag in Gen.Frequency((8, Gen.Choose(0, 20)), (1, Gen.Choose(0, ushort.MaxValue)))
            from low in Gen.Choose(int.MinValue, int.MaxValue)
            from high in Gen.Choose(int.MinValue, int.MaxValue)
            select ((ushort)tag, ((ulong)(uint)high << 32) | (uint)low);
        Gen<((ushort Tag, ulong Value)[] Entries, int Cut)> messages =
            from list in Gen.ArrayOf(entries)
            from cut in Gen.Choose(0, 9)
            select (list, cut);
        var statistics = new BalloonStatistics();
        Prop.ForAll(messages.ToArbitrary(), message => Check(statistics, message.Entries, message.Cut))
            .Check(Config.QuickThrowOnFailure.WithMaxTest(2000).WithReplay(20261121, 11));
    }

    [Fact]
    public void Random_bytes_do_no_harm()
    {
        var random = new Random(1);
        var statistics = new BalloonStatistics();
        for (int i = 0; i < 10_000; i++)
        {
            byte[] bytes = new byte[random.Next(0, 700)];
            random.NextBytes(bytes);
            statistics.Update(bytes);
        }
        statistics.Clear();
        Assert.Empty(Names(statistics));
    }

    [Fact]
    public void Only_what_was_sent_is_told()
    {
        var statistics = new BalloonStatistics();
        Assert.Empty(Names(statistics));
        statistics.Update([4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        Assert.Equal(["guest_free_bytes", "guest_total_bytes"], Names(statistics));
        Assert.Equal(ulong.MaxValue, statistics[BalloonStatistic.TotalMemory]);
        Assert.Null(statistics[BalloonStatistic.DiskCaches]);
        Assert.Null(statistics[(BalloonStatistic)(-1)]);
        Assert.Null(statistics[(BalloonStatistic)16]);
        statistics.Update([]);
        Assert.Empty(Names(statistics));
    }

    private static bool Check(BalloonStatistics statistics, (ushort Tag, ulong Value)[] entries, int cut)
    {
        byte[] message = new byte[entries.Length * 10];
        var expected = new Dictionary<int, ulong>();
        for (int i = 0; i < entries.Length; i++)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(i * 10), entries[i].Tag);
            BinaryPrimitives.WriteUInt64LittleEndian(message.AsSpan((i * 10) + 2), entries[i].Value);
            if (i < entries.Length - 1 || cut == 0)
                expected[entries[i].Tag] = entries[i].Value;
        }
        statistics.Update(message.AsSpan(0, Math.Max(0, message.Length - cut)));
        for (int tag = 0; tag < 32; tag++)
        {
            ulong? value = tag < 16 && expected.TryGetValue(tag, out ulong sent) ? sent : null;
            if (statistics[(BalloonStatistic)tag] != value)
                return false;
        }
        return true;
    }

    private static IReadOnlyCollection<string> Names(BalloonStatistics statistics)
    {
        var counters = new RecordedCounters();
        statistics.Report(counters);
        return counters.Names;
    }
}
