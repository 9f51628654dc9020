using System.Text;
using Vmm.Core;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Block;

/// <summary>Configuration space, and requests that break a rule: each has its answer in VIRTIO 1.3 §5.2.6, none breaks the device.</summary>
public sealed class BlockProtocolTests : IDisposable
{
    private const int Sectors = 64;

    private readonly TemporaryImage _image = TemporaryImage.Make(Sectors * 512);

    public void Dispose() => _image.Dispose();

    [Fact]
    public void The_structures_have_their_size()
    {
        Assert.Equal(BlockConfigurationSpace.Length, System.Runtime.CompilerServices.Unsafe.SizeOf<BlockConfigurationSpace>());
        Assert.Equal(BlockRequestHeader.Length, System.Runtime.CompilerServices.Unsafe.SizeOf<BlockRequestHeader>());
        Assert.Equal(BlockRange.Length, System.Runtime.CompilerServices.Unsafe.SizeOf<BlockRange>());
    }

    [Fact]
    public void The_configuration_space_tells_the_disk()
    {
        using var guest = new BlockGuest(Config() with { NumQueues = 3, QueueSize = 256 });
        Assert.Equal((ulong)Sectors, guest.Driver.ConfigurationField(0, 8));
        Assert.Equal(0u, guest.Driver.ConfigurationField(8, 4));
        Assert.Equal(254u, guest.Driver.ConfigurationField(12, 4));
        Assert.Equal(512u, guest.Driver.ConfigurationField(20, 4));
        Assert.Equal(3u, guest.Driver.ConfigurationField(24, 1));
        Assert.Equal(8u, guest.Driver.ConfigurationField(26, 2));
        Assert.Equal(1u, guest.Driver.ConfigurationField(32, 1));
        Assert.Equal(3u, guest.Driver.ConfigurationField(34, 2));
        Assert.Equal(BlockDevice.MaximumDiscardSectors, guest.Driver.ConfigurationField(36, 4));
        Assert.Equal(BlockDevice.MaximumRanges, guest.Driver.ConfigurationField(40, 4));
        Assert.Equal(8u, guest.Driver.ConfigurationField(44, 4));
        Assert.Equal(BlockDevice.MaximumWriteZeroesSectors, guest.Driver.ConfigurationField(48, 4));
        Assert.Equal([256, 256, 256], guest.Device.QueueSizes);
        Assert.Equal(BlockFeatures.MultiQueue, guest.Device.OfferedFeatures & (BlockFeatures.MultiQueue | BlockFeatures.ReadOnly));
    }

    [Theory]
    [InlineData(0, Sectors, 512, 1)] // begins at the end
    [InlineData(0, Sectors - 1, 1024, 1)] // ends behind it
    [InlineData(0, ulong.MaxValue, 512, 1)] // overflows
    [InlineData(0, ulong.MaxValue / 512, 1024, 1)]
    [InlineData(0, 0, 511, 1)] // not whole sectors
    [InlineData(0, Sectors, 0, 0)] // nothing, at the end: nothing wrong
    [InlineData(2, 0, 512, 2)] // a type that there is not
    [InlineData(10, 0, 512, 2)] // GET_LIFETIME, not offered
    [InlineData(uint.MaxValue, 0, 512, 2)]
    public void A_read_that_is_wrong_has_its_status(uint type, ulong sector, int length, byte status)
    {
        using var guest = new BlockGuest(Config());
        BlockAnswer answer = guest.Do(type, sector, [], length);
        Assert.Equal(status, answer.Status);
        Assert.Equal(status == 0 ? 1u : 0u, answer.Written);
        Assert.Equal(new byte[length], answer.Data);
        StillServes(guest);
    }

    [Theory]
    [InlineData(Sectors, 512)]
    [InlineData(Sectors - 1, 1024)]
    [InlineData(ulong.MaxValue, 512)]
    [InlineData(0, 100)]
    public void A_write_that_is_wrong_writes_nothing(ulong sector, int length)
    {
        using var guest = new BlockGuest(Config());
        byte[] before = _image.Content();
        Assert.Equal(BlockStatus.IoError, guest.Write(sector, [.. Enumerable.Repeat((byte)1, length)]));
        Assert.Equal(before, _image.Content());
        Assert.Equal(1, guest.Counter("bad_requests"));
        Assert.Equal(0, guest.Counter("host_errors"));
        StillServes(guest);
    }

    [Fact]
    public void Chains_without_a_whole_head_or_a_status_are_given_back()
    {
        using var guest = new BlockGuest(Config());
        ulong page = guest.Driver.Arena.Allocate(4096);
        DriverQueue queue = guest.Driver.Queues[0];
        GuestBuffer[][] chains =
        [
            [new(page, 16)],
            [new(page, 15)],
            [new(page, 15), new(page + 100, 1, true)],
            [new(page + 100, 1, true)],
            [new(page + 100, 513, true)],
        ];
        foreach (GuestBuffer[] chain in chains)
        {
            guest.Driver.Memory.Write(page + 100, BlockGuest.NoStatus);
            Assert.True(queue.Add(chain) >= 0);
            queue.Kick();
            UsedBuffer used = queue.WaitUsed();
            Assert.True(guest.Driver.Memory.TryRead(page + 100, out byte status));
            bool alone = chain[^1] is { Writable: true, Length: 1 };
            Assert.Equal(alone ? (byte)BlockStatus.IoError : BlockGuest.NoStatus, status);
            Assert.Equal(alone ? 1u : 0u, used.Written);
        }
        Assert.Equal(chains.Length, guest.Counter("bad_requests"));
        StillServes(guest);
    }

    [Fact]
    public void A_read_only_disk_is_not_written()
    {
        using var guest = new BlockGuest(Config() with { ReadOnly = true });
        Assert.Equal(BlockFeatures.ReadOnly, guest.Device.OfferedFeatures & (BlockFeatures.ReadOnly | BlockFeatures.Flush | BlockFeatures.Discard | BlockFeatures.WriteZeroes));
        Assert.Equal(BlockStatus.IoError, guest.Write(0, new byte[512]));
        Assert.Equal(BlockStatus.Unsupported, guest.Ranges(BlockRequestType.WriteZeroes, (0, 1, 0)));
        Assert.Equal(BlockStatus.Unsupported, guest.Ranges(BlockRequestType.Discard, (0, 1, 0)));
        Assert.Equal(BlockStatus.Ok, guest.Flush());
        StillServes(guest);
    }

    [Theory]
    [InlineData(BlockRequestType.WriteZeroes, 0, 1, 2u, BlockStatus.Unsupported)] // a reserved flag
    [InlineData(BlockRequestType.Discard, 0, 1, 1u, BlockStatus.Unsupported)] // unmap is not a discard's
    [InlineData(BlockRequestType.Discard, Sectors, 1, 0u, BlockStatus.IoError)]
    [InlineData(BlockRequestType.WriteZeroes, Sectors - 1, 2, 0u, BlockStatus.IoError)]
    [InlineData(BlockRequestType.WriteZeroes, ulong.MaxValue, uint.MaxValue, 0u, BlockStatus.IoError)]
    [InlineData(BlockRequestType.Discard, 0, uint.MaxValue, 0u, BlockStatus.IoError)]
    [InlineData(BlockRequestType.Discard, 0, 0, 0u, BlockStatus.Ok)]
    public void Ranges_that_are_wrong_have_their_status(BlockRequestType type, ulong sector, uint sectors, uint flags, BlockStatus status)
    {
        using var guest = new BlockGuest(Config());
        Skip.If(!guest.Image.CanDiscard, "the file system has no holes");
        File.WriteAllBytes(_image.Path, [.. Enumerable.Repeat((byte)7, Sectors * 512)]);
        Assert.Equal(status, guest.Ranges(type, (sector, sectors, flags)));
        Assert.DoesNotContain((byte)0, _image.Content());
        StillServes(guest);
    }

    [Fact]
    public void Too_many_ranges_and_pieces_of_ranges_are_refused()
    {
        using var guest = new BlockGuest(Config());
        Assert.Equal(BlockStatus.IoError, guest.Ranges(BlockRequestType.WriteZeroes, [.. Enumerable.Repeat((0UL, 1u, 0u), 17)]));
        Assert.Equal(BlockStatus.Ok, guest.Ranges(BlockRequestType.WriteZeroes, [.. Enumerable.Repeat((0UL, 1u, 0u), 16)]));
        Assert.Equal(BlockStatus.IoError, guest.Ranges(BlockRequestType.WriteZeroes));
        Assert.Equal(BlockStatus.IoError, guest.Do(13, 0, new byte[24], 0).Code);
    }

    [Theory]
    [InlineData(20)]
    [InlineData(21)]
    [InlineData(512)]
    [InlineData(7)]
    public void The_serial_is_told_as_far_as_there_is_room(int room)
    {
        using var guest = new BlockGuest(Config() with { Serial = "SN-1234567890" });
        BlockAnswer answer = guest.Do(8, 0, [], room);
        Assert.Equal(BlockStatus.Ok, answer.Code);
        Assert.StartsWith(Encoding.ASCII.GetString(answer.Data).TrimEnd('\0'), "SN-1234567890", StringComparison.Ordinal);
        Assert.Equal(Math.Min(room, 13), answer.Data.Count(b => b != 0));
    }

    [Fact]
    public void The_driver_turns_the_cache_off_and_a_reset_turns_it_on()
    {
        using var guest = new BlockGuest(Config());
        guest.Device.WriteConfiguration(30, new byte[4]);
        Assert.Equal(0u, guest.Driver.ConfigurationField(32, 1));
        Assert.True(guest.Device.IsWriteThrough);
        Assert.Equal(BlockStatus.Ok, guest.Write(0, new byte[512]));
        Assert.Equal(BlockStatus.Ok, guest.Ranges(BlockRequestType.WriteZeroes, (0, 1, 0)));
        Assert.Equal(new BlockState(false, Sectors), guest.Device.Save());
        guest.Device.WriteConfiguration(0, new byte[32]);
        guest.Device.WriteConfiguration(33, new byte[27]);
        Assert.Equal(0u, guest.Driver.ConfigurationField(32, 1));
        guest.Driver.Reset();
        Assert.Equal(1u, guest.Driver.ConfigurationField(32, 1));
        Assert.False(guest.Device.IsWriteThrough);
    }

    [Fact]
    public void Without_flush_requests_every_write_is_durable()
    {
        using var guest = new BlockGuest(Config(), without: BlockFeatures.Flush | BlockFeatures.ConfigWriteCache);
        Assert.True(guest.Device.IsWriteThrough);
        guest.Device.WriteConfiguration(32, [1]);
        Assert.True(guest.Device.IsWriteThrough);
        StillServes(guest);
    }

    [Fact]
    public void A_saved_state_is_checked_before_it_is_restored()
    {
        using var guest = new BlockGuest(Config());
        guest.Driver.Reset();
        guest.Device.Restore(new BlockState(false, Sectors));
        Assert.Equal(0u, guest.Driver.ConfigurationField(32, 1));
        Assert.Throws<VmmException>(() => guest.Device.Restore(new BlockState(true, Sectors + 1)));
        Assert.Throws<VmmException>(() => guest.Device.Restore(new BlockState(true, 1) { Version = 2 }));
        Assert.Throws<VmmException>(() => guest.Device.Restore(new Another()));
    }

    [Fact]
    public void Options_that_cannot_be_meant_are_refused()
    {
        Assert.Throws<VmmException>(() => (Config() with { NumQueues = 0 }).Validate());
        Assert.Throws<VmmException>(() => (Config() with { QueueSize = 100 }).Validate());
        Assert.Throws<VmmException>(() => (Config() with { QueueSize = 2048 }).Validate());
        Assert.Throws<VmmException>(() => (Config() with { Serial = new string('x', 21) }).Validate());
        Assert.Throws<VmmException>(() => (Config() with { Path = "" }).Validate());
    }

    private static void StillServes(BlockGuest guest)
    {
        Assert.Equal(512, guest.Read(Sectors - 1, 512).Length);
        Assert.Empty(guest.Driver.Host.ResetReasons);
    }

    private BlockConfig Config() => BlockGuest.Config(_image.Path, BlockEngineKind.Auto);

    private sealed record Another() : VirtioDeviceState(1);
}
