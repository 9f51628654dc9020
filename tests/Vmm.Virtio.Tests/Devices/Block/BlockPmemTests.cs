using Vmm.Core.Memory;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Devices.Pmem;
using Vmm.Virtio.Tests.Devices.Pmem;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Block;

/// <summary>Requests whose data lie in persistent memory, as those of a read with O_DIRECT into a file on DAX do.</summary>
public sealed class BlockPmemTests : IDisposable
{
    private const ulong Home = 1UL << 40;
    private const int Size = 2 << 20;
    private const int Length = 16384;

    private readonly TemporaryImage _image = TemporaryImage.Make(1 << 20);
    private readonly string _path = Path.GetTempFileName();
    private readonly PmemFile _pmem;
    private readonly PmemRegion _region;
    private readonly byte[] _pattern = new byte[Length];

    public BlockPmemTests()
    {
        using (FileStream file = File.OpenWrite(_path))
            file.SetLength(Size);
        _pmem = PmemFile.Open(new PmemConfig(_path));
        _region = new PmemRegion(new FakeSlots(), _pmem.Reservation, _pmem.HostAddress, _pmem.Length, _pmem.FileLength, Home);
        new Random(1).NextBytes(_pattern);
    }

    public static TheoryData<BlockEngineKind, bool, uint> Ways => new()
    {
        { BlockEngineKind.Sync, false, 0 },
        { BlockEngineKind.Sync, false, 3 },
        { BlockEngineKind.Sync, true, 0 },
        { BlockEngineKind.Sync, true, 3 },
        { BlockEngineKind.IoUring, false, 3 },
        { BlockEngineKind.IoUring, true, 0 },
        // Not aligned: through a buffer of ours.
        { BlockEngineKind.IoUring, true, 3 },
    };

    public void Dispose()
    {
        _pmem.Dispose();
        _image.Dispose();
        File.Delete(_path);
    }

    [Theory]
    [MemberData(nameof(Ways))]
    public void Data_are_read_into_it_and_written_from_it(BlockEngineKind engine, bool direct, uint skew)
    {
        File.WriteAllBytes(_image.Path, [.. new byte[4096], .. _pattern, .. new byte[(1 << 20) - 4096 - Length]]);
        using var guest = new BlockGuest(BlockGuest.Config(_image.Path, engine, direct));
        _region.ShareWithDevices(guest.Driver.Memory);
        Assert.Equal((BlockStatus.Ok, Length + 1), Do(guest, 0, 8, Home + 65536 + skew));
        Assert.Equal(_pattern, Pmem(65536 + (int)skew));
        Assert.Equal((BlockStatus.Ok, 1), Do(guest, 1, 128, Home + 65536 + skew));
        Assert.Equal(BlockStatus.Ok, guest.Flush());
        Assert.Equal(_pattern, File.ReadAllBytes(_image.Path)[65536..(65536 + Length)]);
        // Wherever it is placed.
        _region.Place(2 * Home);
        Assert.Equal((BlockStatus.Ok, Length + 1), Do(guest, 0, 8, 2 * Home));
        Assert.Equal(_pattern, Pmem(0));
        Assert.Empty(guest.Driver.Host.ResetReasons);
    }

    [Theory]
    [MemberData(nameof(Ways))]
    public void Where_its_file_was_truncated_a_request_fails_and_the_device_goes_on(BlockEngineKind engine, bool direct, uint skew)
    {
        using var guest = new BlockGuest(BlockGuest.Config(_image.Path, engine, direct));
        _region.ShareWithDevices(guest.Driver.Memory);
        Assert.Equal(BlockStatus.Ok, Do(guest, 0, 8, Home + 65536 + skew).Status);
        using (FileStream file = File.OpenWrite(_path))
            file.SetLength(65536 + 8192);
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(BlockStatus.IoError, Do(guest, 0, 8, Home + 65536 + skew).Status);
            Assert.Equal(BlockStatus.IoError, Do(guest, 1, 8, Home + 65536 + skew).Status);
        }
        Assert.Equal(6, guest.Counter("host_errors"));
        Assert.Equal(_pattern.Length, guest.Read(0, Length).Length);
        Assert.Empty(guest.Driver.Host.ResetReasons);
    }

    [Fact]
    public void Head_and_status_may_lie_in_it_too_and_may_be_gone()
    {
        using var guest = new BlockGuest(BlockGuest.Config(_image.Path, BlockEngineKind.Sync));
        _region.ShareWithDevices(guest.Driver.Memory);
        using (var file = new FileStream(_path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            file.Write([4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xEE]);
            file.Flush();
            DriverQueue queue = guest.Driver.Queues[0];
            GuestBuffer[] flush = [new GuestBuffer(Home, 16), new GuestBuffer(Home + 16, 1, true)];
            Assert.True(queue.Add(flush) >= 0);
            queue.Kick();
            Assert.Equal(1u, queue.WaitUsed().Written);
            Assert.Equal(0, Pmem(0)[16]);
            file.SetLength(0);
            Assert.True(queue.Add(flush) >= 0);
            queue.Kick();
            queue.WaitUsed();
        }
        Assert.Equal(BlockStatus.Ok, guest.Flush());
        Assert.Equal(1, guest.Counter("bad_requests"));
    }

    [Fact]
    public void A_buffer_that_begins_in_it_and_ends_nowhere_breaks_a_rule()
    {
        using var guest = new BlockGuest(BlockGuest.Config(_image.Path, BlockEngineKind.Sync));
        _region.ShareWithDevices(guest.Driver.Memory);
        Assert.Contains("not in RAM", Refused(guest, Home + Size - 512), StringComparison.Ordinal);
    }

    [Fact]
    public void When_it_is_gone_a_buffer_in_it_breaks_a_rule()
    {
        using var guest = new BlockGuest(BlockGuest.Config(_image.Path, BlockEngineKind.Sync));
        _region.ShareWithDevices(guest.Driver.Memory);
        Assert.Equal(BlockStatus.Ok, Do(guest, 0, 8, Home).Status);
        _region.Remove();
        Assert.Contains("not in RAM", Refused(guest, Home), StringComparison.Ordinal);
    }

    private static string Refused(BlockGuest guest, ulong address)
    {
        Assert.Throws<TimeoutException>(() => Do(guest, 0, 8, address));
        return Assert.Single(guest.Driver.Host.ResetReasons);
    }

    private static (BlockStatus Status, int Written) Do(BlockGuest guest, uint type, ulong sector, ulong address)
    {
        ulong head = guest.Driver.Arena.Allocate(16), status = guest.Driver.Arena.Allocate(1);
        guest.Driver.Memory.Write(head, (ulong)type);
        guest.Driver.Memory.Write(head + 8, sector);
        guest.Driver.Memory.Write(status, BlockGuest.NoStatus);
        DriverQueue queue = guest.Driver.Queues[0];
        Assert.True(queue.Add([new GuestBuffer(head, 16), new GuestBuffer(address, Length, type == 0), new GuestBuffer(status, 1, true)]) >= 0);
        queue.Kick();
        UsedBuffer used = queue.WaitUsed();
        Assert.True(guest.Driver.Memory.TryRead(status, out byte answer));
        return ((BlockStatus)answer, (int)used.Written);
    }

    private byte[] Pmem(int offset)
    {
        using var file = new FileStream(_path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        byte[] bytes = new byte[Length];
        file.Position = offset;
        file.ReadExactly(bytes);
        return bytes;
    }
}
