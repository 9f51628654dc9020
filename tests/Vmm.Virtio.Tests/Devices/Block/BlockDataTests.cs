using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Block;

/// <summary>What a guest reads is what it wrote, whatever the engine, the ring and the way it cuts its buffers.</summary>
public sealed class BlockDataTests
{
    private const int Sectors = 96;

    public static TheoryData<BlockEngineKind, int, bool> Ways
    {
        get
        {
            var ways = new TheoryData<BlockEngineKind, int, bool>();
            foreach (BlockEngineKind engine in (BlockEngineKind[])[BlockEngineKind.Sync, BlockEngineKind.IoUring])
            {
                foreach (int rings in (int[])[0, 1, 14, 15])
                {
                    ways.Add(engine, rings, false);
                    ways.Add(engine, rings, true);
                }
            }
            return ways;
        }
    }

    [SkippableTheory]
    [MemberData(nameof(Ways))]
    public void Random_requests_do_what_a_model_does(BlockEngineKind engine, int rings, bool direct)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.Make(Sectors * 512);
        image.NeedsDirect(direct);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine, direct), RingFeatures.Of(rings));
        byte[] model = new byte[Sectors * 512];
        Gen<Step> step =
            from kind in Gen.Frequency((5, Gen.Constant(BlockRequestType.In)), (5, Gen.Constant(BlockRequestType.Out)), (1, Gen.Constant(BlockRequestType.Flush)), (2, Gen.Constant(BlockRequestType.Discard)), (2, Gen.Constant(BlockRequestType.WriteZeroes)))
            from sector in Gen.Choose(0, Sectors)
            from sectors in Gen.Choose(0, Sectors)
            from seed in Gen.Choose(0, int.MaxValue - 1)
            select new Step(kind, sector, Math.Min(sectors, Sectors - sector), seed);
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(25), Prop.ForAll(step.ListOf().ToArbitrary(), steps =>
        {
            foreach (Step s in steps)
            {
                if (!Apply(guest, model, s))
                    return false;
            }
            return guest.Flush() == BlockStatus.Ok && guest.Read(0, model.Length).AsSpan().SequenceEqual(model);
        }));
        Assert.Empty(guest.Driver.Host.ResetReasons);
        Assert.Equal(0, guest.Counter("host_errors"));
        Assert.Equal(engine == BlockEngineKind.Sync ? "sync" : "io_uring", guest.Device.EngineOf(0));
        Assert.Equal(model, image.Content());
        if (direct)
            Assert.True(guest.Counter("bounced") > 0, "Misaligned buffers were bounced.");
    }

    private static bool Apply(BlockGuest guest, byte[] model, Step step)
    {
        var random = new Random(step.Seed);
        Span<byte> range = model.AsSpan(step.Sector * 512, step.Sectors * 512);
        // From aligned whole pages to many small odd pieces.
        int[]? pieces = random.Next(3) == 0 || range.IsEmpty ? null : Cut(random, range.Length);
        uint misalignment = random.Next(3) switch { 0 => 0, 1 => 512, _ => (uint)random.Next(1, 64) };
        bool joined = random.Next(3) == 0;
        switch (step.Kind)
        {
            case BlockRequestType.In:
                return guest.Read((ulong)step.Sector, range.Length, pieces, misalignment, joined).AsSpan().SequenceEqual(range);
            case BlockRequestType.Out:
                random.NextBytes(range);
                return guest.Write((ulong)step.Sector, range.ToArray(), pieces, misalignment, joined) == BlockStatus.Ok;
            case BlockRequestType.Flush:
                return guest.Flush() == BlockStatus.Ok;
            case BlockRequestType.Discard when !guest.Image.CanDiscard:
                return true;
            default:
                range.Clear();
                uint first = (uint)random.Next(step.Sectors + 1);
                uint unmap = step.Kind == BlockRequestType.WriteZeroes ? (uint)random.Next(2) : 0;
                return guest.Ranges(step.Kind, ((ulong)step.Sector, first, unmap), ((ulong)step.Sector + first, (uint)step.Sectors - first, unmap)) == BlockStatus.Ok;
        }
    }

    private static int[] Cut(Random random, int length)
    {
        int most = random.Next(2, 100);
        var pieces = new List<int>();
        while (length > 0)
        {
            int piece = pieces.Count == most ? length : Math.Min(length, random.Next(4) switch { 0 => 512, 1 => 4096, 2 => 1, _ => random.Next(1, 5000) });
            pieces.Add(piece);
            length -= piece;
        }
        return [.. pieces];
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync, false)]
    [InlineData(BlockEngineKind.IoUring, false)]
    [InlineData(BlockEngineKind.Sync, true)]
    [InlineData(BlockEngineKind.IoUring, true)]
    public void A_request_larger_than_any_buffer_of_ours_goes_through(BlockEngineKind engine, bool direct)
    {
        TemporaryImage.NeedsEngine(engine);
        const int length = 3 * 1024 * 1024;
        using TemporaryImage image = TemporaryImage.Make(length + 4096);
        image.NeedsDirect(direct);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine, direct), RingFeatures.Of(14));
        byte[] data = new byte[length];
        new Random(1).NextBytes(data);
        Assert.Equal(BlockStatus.Ok, guest.Write(8, data, [1, length - 1], misalignment: 3));
        Assert.Equal(data, guest.Read(8, length, [length - 1, 1], misalignment: 5));
        Assert.Equal(data, image.Content().AsSpan(4096).ToArray());
        if (direct)
            Assert.Equal(2, guest.Counter("bounced"));
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync)]
    [InlineData(BlockEngineKind.IoUring)]
    public void Zeroes_are_written_where_the_file_system_cannot_zero_a_range(BlockEngineKind engine)
    {
        TemporaryImage.NeedsEngine(engine);
        // tmpfs has holes but no FALLOC_FL_ZERO_RANGE.
        using TemporaryImage image = TemporaryImage.MakeOnTinyFileSystem(8 << 20, "16m");
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine));
        byte[] data = new byte[5 << 20];
        data.AsSpan().Fill(0x5A);
        Assert.Equal(BlockStatus.Ok, guest.Write(0, data));
        Assert.Equal(BlockStatus.Ok, guest.Ranges(BlockRequestType.WriteZeroes, (1, 8192, 0), (9000, 3, 1)));
        data.AsSpan(512, 8192 * 512).Clear();
        data.AsSpan(9000 * 512, 3 * 512).Clear();
        Assert.Equal(data, guest.Read(0, data.Length));
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync, false)]
    [InlineData(BlockEngineKind.IoUring, false)]
    [InlineData(BlockEngineKind.IoUring, true)]
    public void A_block_device_is_a_disk(BlockEngineKind engine, bool direct)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.Make(4 << 20);
        string loop = image.AttachLoop();
        using var guest = new BlockGuest(BlockGuest.Config(loop, engine, direct));
        Assert.True(guest.Image.IsBlockDevice);
        Assert.Equal(8192u, guest.Driver.ConfigurationField(0, 8));
        byte[] data = new byte[64 * 512];
        new Random(2).NextBytes(data);
        Assert.Equal(BlockStatus.Ok, guest.Write(8128, data, misalignment: 1));
        Assert.Equal(BlockStatus.Ok, guest.Ranges(BlockRequestType.WriteZeroes, (8136, 8, 0), (8152, 8, 1)));
        data.AsSpan(8 * 512, 4096).Clear();
        data.AsSpan(24 * 512, 4096).Clear();
        Assert.Equal(data, guest.Read(8128, data.Length));
        if (guest.Image.CanDiscard)
            Assert.Equal(BlockStatus.Ok, guest.Ranges(BlockRequestType.Discard, (8128, 64, 0)));
        Assert.Equal(BlockStatus.Ok, guest.Flush());
        Assert.Equal(BlockStatus.IoError, guest.Do(0, 8192, [], 512).Code);
        Assert.Equal(0, guest.Counter("host_errors"));
    }

    private sealed record Step(BlockRequestType Kind, int Sector, int Sectors, int Seed);
}
