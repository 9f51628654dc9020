using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Block;

/// <summary>Errors of the host reach the guest; a change of the image's size too.</summary>
public sealed class BlockHostTests
{
    public static TheoryData<BlockEngineKind> Engines => [BlockEngineKind.Sync, BlockEngineKind.IoUring];

    [SkippableTheory]
    [MemberData(nameof(Engines))]
    public void A_full_disk_is_an_error_of_the_request_and_of_nothing_else(BlockEngineKind engine)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.MakeOnTinyFileSystem(8 << 20, "1m");
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine));
        byte[] data = new byte[256 * 1024];
        new Random(3).NextBytes(data);
        Assert.Equal(BlockStatus.Ok, guest.Write(0, data));
        BlockStatus status = BlockStatus.Ok;
        ulong sector = 512;
        for (; sector < 8192 && status == BlockStatus.Ok; sector += 512)
            status = guest.Write(sector, data);
        Assert.Equal(BlockStatus.IoError, status);
        for (int i = 0; i < 20; i++)
            Assert.Equal(BlockStatus.IoError, guest.Write(sector + 512, data));
        Assert.Equal(21, guest.Counter("host_errors"));
        // The 1st, 2nd, 4th, 8th and 16th.
        Assert.Equal(5, guest.Reports.Count);
        Assert.Contains("No space left", guest.Reports[0], StringComparison.Ordinal);
        Assert.Equal(data, guest.Read(0, data.Length));
        // Space that is given back can be used again.
        Assert.Equal(BlockStatus.Ok, guest.Ranges(BlockRequestType.Discard, (0, 512, 0)));
        Assert.Equal(BlockStatus.Ok, guest.Write(sector + 512, data.AsSpan(0, 4096).ToArray()));
        Assert.Empty(guest.Driver.Host.ResetReasons);
    }

    [SkippableTheory]
    [MemberData(nameof(Engines))]
    public void An_image_that_was_cut_off_is_an_io_error(BlockEngineKind engine)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.Make(64 * 512);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine));
        Truncate(image.Path, 10 * 512);
        BlockAnswer answer = guest.Do(0, 8, [], 8 * 512);
        Assert.Equal(BlockStatus.IoError, answer.Code);
        Assert.Equal(2u * 512, answer.Written);
        Assert.Contains("made smaller", Assert.Single(guest.Reports), StringComparison.Ordinal);
        guest.Read(0, 10 * 512);
    }

    [SkippableTheory]
    [MemberData(nameof(Engines))]
    public void An_image_that_grew_is_seen_when_it_is_told(BlockEngineKind engine)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.Make(64 * 512);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine));
        Assert.Equal(64u, guest.Device.Resize());
        Assert.Equal(0, guest.Driver.Host.ConfigurationChanges);
        Truncate(image.Path, 128 * 512);
        Assert.Equal(BlockStatus.IoError, guest.Write(64, new byte[512]));
        Assert.Equal(128u, guest.Device.Resize());
        Assert.Equal(1, guest.Driver.Host.ConfigurationChanges);
        Assert.Equal(128u, guest.Driver.ConfigurationField(0, 8));
        Assert.Equal(BlockStatus.Ok, guest.Write(127, new byte[512]));
        Truncate(image.Path, 32 * 512);
        Assert.Equal(32u, guest.Device.Resize());
        Assert.Equal(2, guest.Driver.Host.ConfigurationChanges);
        Assert.Equal(BlockStatus.IoError, guest.Write(32, new byte[512]));
    }

    private static void Truncate(string path, long length)
    {
        // Not by a FileStream, which locks: as another program would do it.
        Assert.NotNull(TemporaryImage.Run("truncate", "-s", length.ToString(), path));
    }
}
