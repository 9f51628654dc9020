using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Tests;

/// <summary>What is wrong with a front-end, so that the scenarios can be seen to find it.</summary>
[Flags]
internal enum Quirks
{
    None = 0,
    TakesAnyReply = 1,
    StartsAnyway = 2,
    MapsOverMappings = 4,
    UnmapsParts = 8,
    GrowsFiles = 16,
    AnswersUnasked = 32,
    EndsChannelOnError = 64,
    KeepsMappings = 128,
    NeverComesBack = 256,
    TakesOtherDevices = 512,
}

/// <summary>
/// The smallest front-end that does what the scenarios ask: it connects, starts the device with one queue, answers on the back-end's channel by
/// the rules for mappings (without mapping anything), breaks at whatever is out of order, and comes back.
/// </summary>
internal sealed unsafe class MiniFrontEnd : IDisposable
{
    // Longer than a reply may be late, also on a machine that is busy.
    private const int Deadline = 5000;
    private const ulong RamSize = 1 << 20;
    private const ulong UserBase = 0x7000_0000_0000;
    // MQ LOG_SHMFD REPLY_ACK BACKEND_REQ CONFIG SEND_FD INFLIGHT RESET_DEVICE MEM_SLOTS DEVICE_STATE SHMEM.
    private const ulong Known = (1 << 0) | (1 << 1) | (1 << 3) | (1 << 5) | (1 << 9) | (1 << 10) | (1 << 12) | (1 << 13) | (1 << 15) | (1 << 19) | (1 << 22);

    private readonly string _path;
    private readonly Quirks _quirks;
    private readonly bool _migrates;
    private readonly FileDescriptor _ram = File("ram", (long)RamSize);
    private readonly FileDescriptor _log = File("log", 4096);
    private readonly FileDescriptor _event = new(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    private readonly List<(byte Region, ulong Offset, ulong Length)> _mappings = [];
    private readonly Thread _thread;
    private volatile bool _stop;
    private UnixStream? _stream;
    private UnixStream? _channel;
    private ulong _features;
    private ulong _protocol;
    private ulong _seenFeatures;
    private ulong[]? _regions;
    private volatile bool _started;

    internal MiniFrontEnd(string path, Quirks quirks, bool migrates)
    {
        _path = path;
        _quirks = quirks;
        _migrates = migrates;
        _thread = new Thread(Run);
        _thread.Start();
    }

    public void Dispose()
    {
        _stop = true;
        _thread.Join();
        _ram.Dispose();
        _log.Dispose();
        _event.Dispose();
    }

    private static FileDescriptor File(string name, long size)
    {
        var file = new FileDescriptor(memfd_create(name, MFD_CLOEXEC));
        return ftruncate(file.Number, size) == 0 ? file : throw new IOException("ftruncate");
    }

    private void Run()
    {
        bool first = true;
        while (!_stop && (first || !_quirks.HasFlag(Quirks.NeverComesBack)))
        {
            _stream = UnixStream.TryConnect(_path, out _);
            if (_stream == null)
            {
                Thread.Sleep(10);
                continue;
            }
            first = false;
            Thread? channelThread = null;
            try
            {
                Connect(out channelThread);
                Start();
                if (_migrates)
                    Migrate();
                while (!_stop && !_stream.HasInput)
                    Thread.Sleep(5);
            }
            catch (Broken)
            {
                // As it must.
            }
            _started = false;
            _stream.Dispose();
            _channel?.Shutdown();
            channelThread?.Join();
            _channel?.Dispose();
            _channel = null;
            if (!_quirks.HasFlag(Quirks.KeepsMappings))
                _mappings.Clear();
            Thread.Sleep(20);
        }
    }

    private void Connect(out Thread? channelThread)
    {
        channelThread = null;
        ulong features = Ask(1, []);
        ulong protocol = Ask(15, []) & Known;
        Check(_seenFeatures == 0 || (_seenFeatures & ~features) == 0 || _quirks.HasFlag(Quirks.TakesOtherDevices));
        Check(_seenFeatures == 0 || (_protocol & ~protocol) == 0 || _quirks.HasFlag(Quirks.TakesOtherDevices));
        _features = features & ~(1ul << 26) & ~(1ul << 29);
        _seenFeatures = _features;
        _protocol = protocol;
        Send(16, 1, [protocol]);
        Send(3, 1, []);
        if (Has(0))
            Check(Ask(17, []) is >= 1 and <= 256);
        if (Has(15))
            Check(Ask(36, []) > 0);
        if (Has(5))
        {
            (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
            _channel = ours;
            channelThread = new Thread(ServeChannel);
            channelThread.Start();
            using (theirs)
                Acked(21, [], theirs.Number);
        }
        if (Has(22))
            TakeRegions(AskBytes(44, [], 2056));
        if (Has(9))
        {
            byte[] config = AskBytes(24, [0u, 8u, 0u, new byte[8]], 20);
            Check(BitConverter.ToUInt32(config) == 0 && BitConverter.ToUInt32(config, 4) == 8);
        }
        if (Has(12))
            TakeInflight();
    }

    private void TakeRegions(byte[] config)
    {
        var sizes = new ulong[256];
        uint used = 0;
        ulong sum = 0;
        for (int i = 0; i < 256; i++)
        {
            sizes[i] = BitConverter.ToUInt64(config, 8 + (8 * i));
            used += sizes[i] == 0 ? 0u : 1u;
            Check(sizes[i] % 4096 == 0 && sizes[i] <= 1ul << 36 && (sum += sizes[i]) <= 1ul << 36);
        }
        Check(BitConverter.ToUInt32(config) is <= 256 and var count && count >= used);
        Check(_regions == null || _regions.AsSpan().SequenceEqual(sizes) || _quirks.HasFlag(Quirks.TakesOtherDevices));
        _regions = sizes;
    }

    private void TakeInflight()
    {
        var descriptors = new List<FileDescriptor>();
        try
        {
            byte[] buffer = AskBytes(31, [0ul, 0ul, (ushort)1, (ushort)16, 0u], 24, descriptors, 1);
            ulong size = BitConverter.ToUInt64(buffer);
            Check(size <= 1 << 20 && size <= (ulong)lseek(descriptors[0].Number, 0, SEEK_END));
            Send(32, 1, [buffer], descriptors[0].Number);
        }
        finally
        {
            descriptors.ForEach(descriptor => descriptor.Dispose());
        }
    }

    private void Start(ulong firstIndex = 0, bool again = false)
    {
        Send(2, 1, [_features]);
        if (!again && !Has(15))
            Acked(5, [1u, 0u, 0ul, RamSize, UserBase, 0ul], _ram.Number);
        else if (!again)
            Acked(37, [0ul, 0ul, RamSize, UserBase, 0ul], _ram.Number);
        Send(8, 1, [0u, 16u]);
        Send(10, 1, [0u, (uint)firstIndex]);
        Send(9, 1, [0u, 0u, UserBase, UserBase + 0x800, UserBase + 0x400, 0ul]);
        // The kick is readable from the start, as QEMU's is.
        ulong one = 1;
        _ = write(_event.Number, &one, 8);
        Acked(12, [0ul], _event.Number);
        Acked(13, [0ul], _event.Number);
        _started = true;
        Acked(18, [0u, 1u]);
        Ask(1, []);
    }

    /// <summary>Begins to move away, and starts again where it was when that fails.</summary>
    private void Migrate()
    {
        Thread.Sleep(50);
        int[] pipe = new int[2];
        fixed (int* fds = pipe)
            Check(pipe2(fds, O_CLOEXEC) == 0);
        using var reader = new FileDescriptor(pipe[0]);
        using (var writer = new FileDescriptor(pipe[1]))
        {
            if (Has(1))
            {
                Send(6, 1, [4096ul, 0ul], _log.Number);
                Check(Receive(6, -1, [], 0).Length is 0 or 8 or 16);
            }
            Acked(18, [0u, 0u]);
            byte[] state = AskBytes(11, [0u, 0u], 8);
            ulong index = BitConverter.ToUInt32(state, 4) & 0xFFFF;
            // Nothing was ever made available.
            Check(((0 - index) & 0xFFFF) <= 16);
            if (Has(19))
            {
                ulong answer = Ask(42, [0u, 0u], writer.Number);
                writer.Dispose();
                Check((answer & 0x1FF) is 0x100 or (> 0x100 and < 0x200));
                if ((answer & 0xFF) == 0)
                {
                    byte* buffer = stackalloc byte[64];
                    var wanted = new pollfd { fd = reader.Number, events = POLLIN };
                    Check(poll(&wanted, 1, Deadline) > 0);
                    _ = read(reader.Number, buffer, 64);
                    Ask(43, []);
                }
            }
            Start(index, again: true);
        }
    }

    private bool Has(int bit) => (_protocol & (1ul << bit)) != 0;

    private static void Check(bool condition)
    {
        if (!condition)
            throw new Broken();
    }

    private void Send(uint request, uint flags, object[] parts, params int[] descriptors)
    {
        Check(!_stream!.HasInput || _quirks.HasFlag(Quirks.TakesAnyReply));
        byte[] payload = [];
        foreach (object part in parts)
        {
            payload = [.. payload, .. part switch
            {
                uint number => BitConverter.GetBytes(number),
                ulong number => BitConverter.GetBytes(number),
                ushort number => BitConverter.GetBytes(number),
                _ => (byte[])part,
            }];
        }
        byte[] message = [.. BitConverter.GetBytes(request), .. BitConverter.GetBytes(flags), .. BitConverter.GetBytes((uint)payload.Length), .. payload];
        Check(_stream.Send(message, descriptors, Deadline) == 0);
    }

    private void Acked(uint request, object[] parts, params int[] descriptors)
    {
        Send(request, Has(3) ? 9u : 1u, parts, descriptors);
        if (Has(3))
            Check(BitConverter.ToUInt64(Receive(request, 8, [], 0)) == 0 || _quirks.HasFlag(Quirks.StartsAnyway));
    }

    private ulong Ask(uint request, object[] parts, params int[] descriptors)
    {
        Send(request, 1, parts, descriptors);
        return BitConverter.ToUInt64(Receive(request, 8, [], 0));
    }

    private byte[] AskBytes(uint request, object[] parts, int length, List<FileDescriptor>? descriptors = null, int count = 0)
    {
        Send(request, 1, parts);
        return Receive(request, length, descriptors ?? [], count);
    }

    private byte[] Receive(uint request, int length, List<FileDescriptor> descriptors, int count)
    {
        var got = new List<FileDescriptor>();
        try
        {
            var header = new byte[12];
            Check(_stream!.ReceiveExactly(header, got, Deadline) == 0);
            uint size = BitConverter.ToUInt32(header, 8);
            bool any = _quirks.HasFlag(Quirks.TakesAnyReply);
            Check(size <= 4096);
            Check(any || (BitConverter.ToUInt32(header) == request && BitConverter.ToUInt32(header, 4) == 5 && (length < 0 || size == length)));
            var payload = new byte[size];
            Check(_stream.ReceiveExactly(payload, got, Deadline) == 0);
            Check(any || got.Count == count);
            descriptors.AddRange(got);
            got.Clear();
            Array.Resize(ref payload, Math.Max(payload.Length, length));
            return payload;
        }
        finally
        {
            got.ForEach(descriptor => descriptor.Dispose());
        }
    }

    private void ServeChannel()
    {
        UnixStream channel = _channel!;
        while (true)
        {
            var descriptors = new List<FileDescriptor>();
            try
            {
                var header = new byte[12];
                if (channel.ReceiveExactly(header, descriptors, -1) != 0)
                    return;
                uint request = BitConverter.ToUInt32(header);
                uint flags = BitConverter.ToUInt32(header, 4);
                uint size = BitConverter.ToUInt32(header, 8);
                if (size > 4096 || (flags & ~8u) != 1)
                {
                    channel.Shutdown();
                    return;
                }
                var payload = new byte[size];
                if (channel.ReceiveExactly(payload, descriptors, -1) != 0)
                    return;
                ulong answer = Decide(request, payload, descriptors);
                if (answer != 0 && _quirks.HasFlag(Quirks.EndsChannelOnError))
                    channel.Shutdown();
                bool asked = (flags & 8) != 0 && Has(3);
                if ((asked || _quirks.HasFlag(Quirks.AnswersUnasked))
                    && channel.Send([.. BitConverter.GetBytes(request), .. BitConverter.GetBytes(5), .. BitConverter.GetBytes(8), .. BitConverter.GetBytes(answer)], [], Deadline) != 0)
                {
                    channel.Shutdown();
                    return;
                }
            }
            finally
            {
                descriptors.ForEach(descriptor => descriptor.Dispose());
            }
        }
    }

    private ulong Decide(uint request, byte[] payload, List<FileDescriptor> descriptors)
    {
        if (request == 2 && Has(9))
            return payload.Length == 0 && descriptors.Count == 0 ? 0ul : EINVAL;
        if (request is not (9 or 10) || !Has(22) || !_started)
            return EOPNOTSUPP;
        if (payload.Length != 40)
            return EINVAL;
        byte region = payload[0];
        ulong fileOffset = BitConverter.ToUInt64(payload, 8);
        ulong offset = BitConverter.ToUInt64(payload, 16);
        ulong length = BitConverter.ToUInt64(payload, 24);
        ulong flags = BitConverter.ToUInt64(payload, 32);
        ulong size = _regions![region];
        if (size == 0 || length == 0 || length > size || offset > size - length || offset % 4096 != 0)
            return EINVAL;
        if (request == 10)
        {
            if (descriptors.Count != 0)
                return EINVAL;
            int found = _mappings.FindIndex(m => m.Region == region && m.Offset == offset && (m.Length == length || _quirks.HasFlag(Quirks.UnmapsParts)));
            if (found < 0)
                return ENOENT;
            _mappings.RemoveAt(found);
            return 0;
        }
        return Map(region, fileOffset, offset, length, flags, descriptors);
    }

    private ulong Map(byte region, ulong fileOffset, ulong offset, ulong length, ulong flags, List<FileDescriptor> descriptors)
    {
        if (descriptors.Count != 1 || !Has(10) || flags > 1 || fileOffset % 4096 != 0 || fileOffset > long.MaxValue - length)
            return EINVAL;
        ulong end = RoundUp(offset + length);
        bool overlaps = _mappings.Exists(m => m.Region == region && m.Offset < end && offset < RoundUp(m.Offset + m.Length));
        if (overlaps && !_quirks.HasFlag(Quirks.MapsOverMappings))
            return EEXIST;
        int fd = descriptors[0].Number;
        statx status;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, &status) != 0 || (status.stx_mode & S_IFMT) != S_IFREG)
            return EINVAL;
        if (status.stx_size < fileOffset + length)
        {
            if (_quirks.HasFlag(Quirks.GrowsFiles))
                _ = ftruncate(fd, (long)(fileOffset + length));
            return EINVAL;
        }
        void* address = mmap(null, (nuint)length, flags == 1 ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, (long)fileOffset);
        if (address == MAP_FAILED)
            return (ulong)errno;
        _ = munmap(address, (nuint)length);
        _mappings.Add((region, offset, length));
        return 0;
    }

    private static ulong RoundUp(ulong value) => (value + 4095) & ~4095ul;

    private sealed class Broken : Exception;
}
