using Vmm.Core.Events;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Block;

/// <summary>A request that a test's driver has made available.</summary>
internal sealed record BlockInFlight(int Token, ulong Header, int HeaderLength, ulong Status, (ulong Address, ulong Length, uint Misalignment)[] Data);

/// <summary>How a request ended.</summary>
internal sealed record BlockAnswer(byte Status, byte[] Data, uint Written)
{
    public BlockStatus Code => (BlockStatus)Status;
}

/// <summary>An image file, a block device on it, and a guest that drives it.</summary>
internal sealed class BlockGuest : IDisposable
{
    public const byte NoStatus = 0xEE;

    private readonly EventLoop[] _loops;

    public BlockGuest(BlockConfig config, RingFeatures rings = default, ulong without = 0, int loops = 1, TimeProvider? clock = null)
    {
        Image = DiskImage.Open(config);
        _loops = [.. Enumerable.Range(0, loops).Select(i => new EventLoop($"block{i}"))];
        Device = new BlockDevice(config, Image, _loops, message => { lock (Reports) Reports.Add(message); }, clock);
        Driver = new GuestDriver(Device, rings, 0xFF_FFFF & ~without);
        Driver.Start();
    }

    public DiskImage Image { get; }

    public BlockDevice Device { get; }

    public GuestDriver Driver { get; }

    public List<string> Reports { get; } = [];

    public EventLoop Loop => _loops[0];

    public static BlockConfig Config(string path, BlockEngineKind engine, bool direct = false) =>
        new() { Id = "disk0", Path = path, Engine = engine, Direct = direct };

    public long Counter(string name)
    {
        var sink = new CounterList();
        Device.ReportCounters(sink);
        return sink.Values[name];
    }

    /// <summary>Adds a request without ringing; the lengths of its pieces of data say how it is cut.</summary>
    public BlockInFlight? Add(uint type, ulong sector, byte[] send, int receive, int[]? pieces = null, uint misalignment = 0, int queue = 0, bool joined = false, bool indirect = false)
    {
        int length = send.Length + receive;
        pieces ??= length == 0 ? [] : [length];
        byte[] head = new byte[16];
        BitConverter.TryWriteBytes(head, type);
        BitConverter.TryWriteBytes(head.AsSpan(8), sector);
        // Joined: head and first data in one buffer, last data and status in one, as a driver is free to do (VIRTIO 1.3 §2.7.4.1).
        int inHead = joined && send.Length > 0 ? pieces[0] : 0;
        int inTail = joined && receive > 0 ? pieces[^1] : 0;
        ulong header = Driver.Arena.Allocate(16 + (ulong)inHead);
        ulong status = Driver.Arena.Allocate(1 + (ulong)inTail);
        Driver.Memory.Write(header, head);
        Driver.Memory.Write(status + (ulong)inTail, NoStatus);
        var buffers = new List<GuestBuffer> { new(header, (uint)(16 + inHead)) };
        var data = new List<(ulong, ulong, uint)>();
        int at = 0;
        foreach (int piece in pieces)
        {
            if (inHead > 0 && at == 0)
            {
                Driver.Memory.Write(header + 16, send.AsSpan(0, piece));
            }
            else if (inTail == 0 || at + piece < length)
            {
                ulong address = Driver.Arena.Allocate((ulong)piece + misalignment);
                data.Add((address, (ulong)piece, misalignment));
                if (send.Length > 0)
                    Driver.Memory.Write(address + misalignment, send.AsSpan(at, piece));
                buffers.Add(new GuestBuffer(address + misalignment, (uint)piece, receive > 0));
            }
            at += piece;
        }
        buffers.Add(new GuestBuffer(status, 1 + (uint)inTail, true));
        int token = Driver.Queues[queue].Add(buffers.ToArray(), indirect);
        if (token >= 0)
            return new BlockInFlight(token, header, inHead, status, [.. data]) { };
        Free(new BlockInFlight(0, header, inHead, status, [.. data]), inTail);
        return null;
    }

    public BlockAnswer Do(uint type, ulong sector, byte[] send, int receive, int[]? pieces = null, uint misalignment = 0, int queue = 0, bool joined = false, bool indirect = false)
    {
        BlockInFlight request = Add(type, sector, send, receive, pieces, misalignment, queue, joined, indirect) ?? throw new InvalidOperationException("The ring is full.");
        Driver.Queues[queue].Kick();
        UsedBuffer used = Driver.Queues[queue].WaitUsed();
        Assert.Equal(request.Token, used.Token);
        int inTail = joined && receive > 0 ? (pieces ?? [receive])[^1] : 0;
        return Finish(request, used, receive, inTail);
    }

    /// <summary>Reads what came back, and frees its memory.</summary>
    public BlockAnswer Finish(BlockInFlight request, UsedBuffer used, int receive, int inTail = 0)
    {
        Assert.True(Driver.Memory.TryRead(request.Status + (ulong)inTail, out byte status));
        byte[] data = new byte[receive];
        if (receive > 0)
        {
            int at = 0;
            foreach ((ulong address, ulong length, uint misalignment) in request.Data)
            {
                Assert.True(Driver.Memory.TryRead(address + misalignment, data.AsSpan(at, (int)length)));
                at += (int)length;
            }
            Assert.True(Driver.Memory.TryRead(request.Status, data.AsSpan(at, inTail)));
        }
        Free(request, inTail);
        return new BlockAnswer(status, data, used.Written);
    }

    public byte[] Read(ulong sector, int length, int[]? pieces = null, uint misalignment = 0, bool joined = false)
    {
        BlockAnswer answer = Do(0, sector, [], length, pieces, misalignment, joined: joined);
        Assert.Equal(BlockStatus.Ok, answer.Code);
        Assert.Equal((uint)length + 1, answer.Written);
        return answer.Data;
    }

    public BlockStatus Write(ulong sector, byte[] data, int[]? pieces = null, uint misalignment = 0, bool joined = false) =>
        Do(1, sector, data, 0, pieces, misalignment, joined: joined).Code;

    public BlockStatus Flush() => Do(4, 0, [], 0).Code;

    public BlockStatus Ranges(BlockRequestType type, params (ulong Sector, uint Sectors, uint Flags)[] ranges)
    {
        byte[] bytes = new byte[ranges.Length * 16];
        for (int i = 0; i < ranges.Length; i++)
        {
            BitConverter.TryWriteBytes(bytes.AsSpan(i * 16), ranges[i].Sector);
            BitConverter.TryWriteBytes(bytes.AsSpan((i * 16) + 8), ranges[i].Sectors);
            BitConverter.TryWriteBytes(bytes.AsSpan((i * 16) + 12), ranges[i].Flags);
        }
        return Do((uint)type, 0, bytes, 0).Code;
    }

    public void Dispose()
    {
        Driver.Dispose();
        Device.Dispose();
        Image.Dispose();
        foreach (EventLoop loop in _loops)
            loop.Dispose();
    }

    private void Free(BlockInFlight request, int inTail)
    {
        Driver.Arena.Free(request.Header, 16 + (ulong)request.HeaderLength);
        Driver.Arena.Free(request.Status, 1 + (ulong)inTail);
        foreach ((ulong address, ulong length, uint misalignment) in request.Data)
            Driver.Arena.Free(address, length + misalignment);
    }

    private sealed class CounterList : ICounterSink
    {
        public Dictionary<string, long> Values { get; } = [];

        public void Add(string name, long value) => Values.Add(name, value);
    }
}
