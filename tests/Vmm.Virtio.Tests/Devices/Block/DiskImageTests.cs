using Vmm.Core;
using Vmm.Virtio.Devices.Block;

namespace Vmm.Virtio.Tests.Devices.Block;

public sealed class DiskImageTests : IDisposable
{
    private readonly TemporaryImage _image = TemporaryImage.Make(1 << 20);

    public void Dispose() => _image.Dispose();

    [Fact]
    public void Two_writers_cannot_have_one_image()
    {
        using (DiskImage.Open(Config()))
        {
            VmmException error = Assert.Throws<VmmException>(() => DiskImage.Open(Config()));
            Assert.Contains(_image.Path, error.Message, StringComparison.Ordinal);
            Assert.Contains("in use", error.Message, StringComparison.Ordinal);
            Assert.Contains("readonly=on", error.Message, StringComparison.Ordinal);
            Assert.Throws<VmmException>(() => DiskImage.Open(Config() with { ReadOnly = true }));
        }
        using DiskImage again = DiskImage.Open(Config());
    }

    [Fact]
    public void Readers_share_an_image_and_keep_writers_out()
    {
        using DiskImage first = DiskImage.Open(Config() with { ReadOnly = true });
        using (DiskImage second = DiskImage.Open(Config() with { ReadOnly = true }))
            Assert.Throws<VmmException>(() => DiskImage.Open(Config()));
        Assert.Throws<VmmException>(() => DiskImage.Open(Config()));
    }

    [Fact]
    public void The_lock_outlives_the_devices_on_the_image()
    {
        using DiskImage image = DiskImage.Open(Config());
        using var loop = new Core.Events.EventLoop("block");
        for (int life = 0; life < 3; life++)
        {
            using (new BlockDevice(Config(), image, [loop]))
                Assert.Throws<VmmException>(() => DiskImage.Open(Config()));
            Assert.Throws<VmmException>(() => DiskImage.Open(Config()));
        }
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync)]
    [InlineData(BlockEngineKind.IoUring)]
    public void An_image_is_free_as_soon_as_it_is_closed(BlockEngineKind engine)
    {
        TemporaryImage.NeedsEngine(engine);
        for (int i = 0; i < 20; i++)
        {
            using var guest = new BlockGuest(BlockGuest.Config(_image.Path, engine));
            Assert.Equal(BlockStatus.Ok, guest.Write(0, new byte[4096]));
        }
    }

    [Fact]
    public void What_cannot_be_a_disk_says_so()
    {
        Assert.Contains("There is no disk image", Message(Config() with { Path = _image.Path + ".no" }), StringComparison.Ordinal);
        Assert.Contains("neither a file nor a block device", Message(Config() with { Path = "/dev/null" }), StringComparison.Ordinal);
        Assert.Contains("directory", Message(Config() with { Path = _image.Directory }), StringComparison.OrdinalIgnoreCase);
        Assert.Contains("neither", Message(Config() with { Path = _image.Directory, ReadOnly = true }), StringComparison.Ordinal);
    }

    [Fact]
    public void A_size_that_is_not_whole_sectors_is_cut()
    {
        File.WriteAllBytes(_image.Path, new byte[1023]);
        using DiskImage image = DiskImage.Open(Config());
        Assert.Equal(1u, image.Sectors);
    }

    [Fact]
    public void An_engine_that_cannot_be_had_is_an_error_only_where_it_was_asked_for()
    {
        using DiskImage image = DiskImage.Open(Config());
        using var loop = new Core.Events.EventLoop("block");
        using var device = new BlockDevice(Config() with { Engine = BlockEngineKind.Auto }, image, [loop]);
        Assert.Null(device.EngineOf(0));
    }

    private static string Message(BlockConfig config) => Assert.Throws<VmmException>(() => DiskImage.Open(config)).Message;

    private BlockConfig Config() => BlockGuest.Config(_image.Path, BlockEngineKind.Auto);
}
