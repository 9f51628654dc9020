using System.Buffers.Binary;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Vmm.VhostUserBackEnd.Rings;

namespace Vmm.VhostUserBackEnd;

/// <summary>virtio-blk over a file (VIRTIO 1.3 §5.2): reads, writes, flushes and says its name; several queues; a size that changes.</summary>
public sealed class BlkDevice : DeviceModel, IDisposable
{
    public const int SectorSize = 512;

    private const int ConfigLength = 60;
    private const int HeaderLength = 16;
    private const ulong SegMax = 1 << 2;
    private const ulong ReadOnly = 1 << 5;
    private const ulong BlkSize = 1 << 6;
    private const ulong Flush = 1 << 9;
    private const ulong Mq = 1 << 12;
    private const uint TypeIn = 0;
    private const uint TypeOut = 1;
    private const uint TypeFlush = 4;
    private const uint TypeGetId = 8;
    private const int IdLength = 20;
    private const byte StatusOk = 0;
    private const byte StatusIoError = 1;
    private const byte StatusUnsupported = 2;

    private readonly SafeFileHandle _file;
    private readonly bool _readOnly;
    private readonly int _queues;
    private readonly byte[] _id;
    private long _sectors;

    /// <param name="path">The image; its length, in whole sectors, is the disk's.</param>
    /// <param name="readOnly">Whether the guest may not write.</param>
    /// <param name="queues">How many queues.</param>
    /// <param name="id">What the disk says its name is, at most 20 bytes.</param>
    public BlkDevice(string path, bool readOnly = false, int queues = 1, string id = "vhost-user-blk")
    {
        _file = File.OpenHandle(path, FileMode.Open, readOnly ? FileAccess.Read : FileAccess.ReadWrite, FileShare.ReadWrite);
        _readOnly = readOnly;
        _queues = queues;
        _id = Encoding.UTF8.GetBytes(id);
        _sectors = RandomAccess.GetLength(_file) / SectorSize;
    }

    public override ulong Features => SegMax | BlkSize | Flush | (_queues > 1 ? Mq : 0) | (_readOnly ? ReadOnly : 0);

    public override int QueueCount => _queues;

    public override byte[] InitialConfig
    {
        get
        {
            var config = new byte[ConfigLength];
            BinaryPrimitives.WriteInt64LittleEndian(config, Sectors);
            BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(12), 126);
            BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(20), SectorSize);
            BinaryPrimitives.WriteUInt16LittleEndian(config.AsSpan(34), (ushort)_queues);
            return config;
        }
    }

    /// <summary>The disk's size in sectors.</summary>
    public long Sectors => Interlocked.Read(ref _sectors);

    /// <summary>How long each request takes at least: requests pile up behind it, so that there are some to lose.</summary>
    public int DelayMilliseconds { get; set; }

    /// <summary>How many requests were served, those that were served again included.</summary>
    public long Requests => Interlocked.Read(ref _requests);
    private long _requests;

    /// <summary>Makes the file larger or smaller and tells the front-end.</summary>
    public ChannelAnswer Resize(BackEnd backEnd, long sectors)
    {
        RandomAccess.SetLength(_file, sectors * SectorSize);
        Interlocked.Exchange(ref _sectors, sectors);
        byte[] config = backEnd.Config;
        BinaryPrimitives.WriteInt64LittleEndian(config, sectors);
        backEnd.Config = config;
        return backEnd.Session?.Channel?.ConfigChange() ?? new ChannelAnswer(ChannelResult.NoChannel);
    }

    public override int Handle(BackEndSession session, Vring queue, Chain chain)
    {
        if (DelayMilliseconds > 0)
            session.Sleep(DelayMilliseconds);
        if (session.IsGoing)
            return DeviceModelResult.KeepForEver;
        Interlocked.Increment(ref _requests);
        int room = chain.WritableLength - 1;
        Span<byte> header = stackalloc byte[HeaderLength];
        if (room < 0)
            return 0;
        int written = 0;
        byte status = StatusIoError;
        if (chain.Read(0, header) == HeaderLength)
            status = Serve(chain, BinaryPrimitives.ReadUInt32LittleEndian(header), BinaryPrimitives.ReadUInt64LittleEndian(header[8..]), room, out written);
        chain.Write(room, [status]);
        // The status is the last byte, wherever the data end.
        return status == StatusOk && written == room ? room + 1 : chain.WritableLength;
    }

    public void Dispose() => _file.Dispose();

    private byte Serve(Chain chain, uint type, ulong sector, int room, out int written)
    {
        written = 0;
        try
        {
            switch (type)
            {
                case TypeIn when InBounds(sector, room):
                    var data = new byte[room];
                    // What lies beyond the file's end, where it has shrunk, reads as zeros.
                    RandomAccess.Read(_file, data, (long)sector * SectorSize);
                    written = chain.Write(0, data);
                    return StatusOk;
                case TypeOut when !_readOnly && InBounds(sector, chain.ReadableLength - HeaderLength):
                    var from = new byte[chain.ReadableLength - HeaderLength];
                    chain.Read(HeaderLength, from);
                    RandomAccess.Write(_file, from, (long)sector * SectorSize);
                    return StatusOk;
                case TypeFlush:
                    RandomAccess.FlushToDisk(_file);
                    return StatusOk;
                case TypeGetId:
                    var id = new byte[Math.Min(IdLength, room)];
                    _id.AsSpan(0, Math.Min(_id.Length, id.Length)).CopyTo(id);
                    written = chain.Write(0, id);
                    return StatusOk;
                case TypeIn or TypeOut:
                    return StatusIoError;
                default:
                    return StatusUnsupported;
            }
        }
        catch (IOException)
        {
            return StatusIoError;
        }
    }

    private bool InBounds(ulong sector, int length)
    {
        ulong sectors = (ulong)Sectors;
        return length >= 0 && length % SectorSize == 0 && sector <= sectors && (ulong)(length / SectorSize) <= sectors - sector;
    }
}
