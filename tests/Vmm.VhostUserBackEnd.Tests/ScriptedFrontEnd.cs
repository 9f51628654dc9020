using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Tests;

/// <summary>
/// A front-end of sockets and hand-made bytes: it knows nothing of the library's messages, so a layout that is wrong there is wrong here too late
/// to agree with it.
/// </summary>
internal sealed unsafe class ScriptedFrontEnd : IDisposable
{
    internal const ulong RamSize = 4 << 20;
    internal const ulong UserBase = 0x7000_0000_0000;
    internal const ulong GuestBase = 0x10_0000;
    internal const int QueueSize = 16;

    /// <summary>How long anything may take, in milliseconds: only a test that fails waits for it.</summary>
    internal const int Deadline = 30_000;

    private readonly UnixStream _stream;
    private readonly FileDescriptor _ram;
    private readonly HostMapping _mapping;
    private readonly List<IDisposable> _owned = [];

    internal ScriptedFrontEnd(UnixStream stream)
    {
        _stream = stream;
        int fd = memfd_create("ram", MFD_CLOEXEC);
        Assert.True(fd >= 0);
        _ram = new FileDescriptor(fd);
        Assert.Equal(0, ftruncate(fd, (long)RamSize));
        _mapping = HostMapping.TryMap((nuint)RamSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd)!;
    }

    internal UnixStream Stream => _stream;

    internal UnixStream? Channel { get; private set; }

    internal int RamDescriptor => _ram.Number;

    internal byte* Ram => _mapping.Address;

    /// <summary>A pair of a back-end that is being served and the front-end that talks to it.</summary>
    internal static (ScriptedFrontEnd FrontEnd, BackEndSession Session) Connect(BackEnd backEnd)
    {
        (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
        return (new ScriptedFrontEnd(ours), backEnd.ServeInBackground(theirs));
    }

    /// <summary>Sends hexadecimal digits; blanks are for the reader.</summary>
    internal void SendHex(string hex, params int[] descriptors) =>
        Assert.Equal(0, _stream.Send(Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal)), descriptors, Deadline));

    /// <summary>Sends a request of parts: uint and ulong in little endian, byte[] as they are.</summary>
    internal void Send(uint request, uint flags, object[] parts, params int[] descriptors)
    {
        using var payload = new MemoryStream();
        foreach (object part in parts)
        {
            payload.Write(part switch
            {
                uint number => BitConverter.GetBytes(number),
                ulong number => BitConverter.GetBytes(number),
                ushort number => BitConverter.GetBytes(number),
                byte[] bytes => bytes,
                _ => throw new ArgumentException("uint, ulong, ushort or bytes"),
            });
        }
        byte[] message = [.. BitConverter.GetBytes(request), .. BitConverter.GetBytes(flags), .. BitConverter.GetBytes((uint)payload.Length), .. payload.ToArray()];
        Assert.Equal(0, _stream.Send(message, descriptors, Deadline));
    }

    internal (uint Request, uint Flags, byte[] Payload) Receive(List<FileDescriptor>? descriptors = null) => ReceiveFrom(_stream, descriptors ?? []);

    internal static (uint Request, uint Flags, byte[] Payload) ReceiveFrom(UnixStream stream, List<FileDescriptor> descriptors)
    {
        var header = new byte[12];
        Assert.Equal(0, stream.ReceiveExactly(header, descriptors, Deadline));
        var payload = new byte[BitConverter.ToUInt32(header, 8)];
        Assert.Equal(0, stream.ReceiveExactly(payload, descriptors, Deadline));
        return (BitConverter.ToUInt32(header), BitConverter.ToUInt32(header, 4), payload);
    }

    internal ulong Ask(uint request, object[] parts, params int[] descriptors)
    {
        Send(request, 1, parts, descriptors);
        return Answer(request);
    }

    internal ulong AskAck(uint request, object[] parts, params int[] descriptors)
    {
        Send(request, 9, parts, descriptors);
        return Answer(request);
    }

    internal ulong Answer(uint request)
    {
        (uint id, uint flags, byte[] payload) = Receive();
        Assert.Equal(request, id);
        Assert.Equal(5u, flags);
        Assert.Equal(8, payload.Length);
        return BitConverter.ToUInt64(payload);
    }

    /// <summary>Negotiates all that is offered, gives a channel, and says who the owner is.</summary>
    internal void Negotiate(ulong without = 0)
    {
        ulong features = Ask(1, []);
        ulong protocol = Ask(15, []);
        Send(16, 1, [protocol & ~without]);
        Send(3, 1, []);
        (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
        Assert.Equal(0ul, AskAck(21, [], theirs.Number));
        theirs.Dispose();
        Channel = ours;
        _owned.Add(ours);
        Send(2, 1, [features & ~(1ul << 29) & ~(1ul << 26)]);
    }

    internal void GiveMemory() => Assert.Equal(0ul, AskAck(37, [0ul, GuestBase, RamSize, UserBase, 0ul], _ram.Number));

    /// <summary>Starts a queue whose rings are in its own page of memory, and gives its eventfds.</summary>
    internal TestQueue StartQueue(uint index, uint firstIndex = 0)
    {
        var queue = new TestQueue(this, index);
        Send(8, 1, [index, (uint)QueueSize]);
        Send(10, 1, [index, firstIndex]);
        ulong at = UserBase + queue.Offset;
        Send(9, 1, [index, 0u, at, at + TestQueue.Used, at + TestQueue.Available, 0ul]);
        Assert.Equal(0ul, AskAck(12, [(ulong)index], queue.Kick.Number));
        Assert.Equal(0ul, AskAck(13, [(ulong)index], queue.Call.Number));
        Assert.Equal(0ul, AskAck(18, [index, 1u]));
        _owned.Add(queue);
        return queue;
    }

    public void Dispose()
    {
        foreach (IDisposable owned in _owned)
            owned.Dispose();
        _stream.Dispose();
        _mapping.Dispose();
        _ram.Dispose();
    }

    /// <summary>The driver's side of a split ring.</summary>
    internal sealed class TestQueue : IDisposable
    {
        internal const ulong Available = 0x400;
        internal const ulong Used = 0x800;

        private readonly ScriptedFrontEnd _owner;
        private ushort _available;
        private ushort _descriptor;

        internal TestQueue(ScriptedFrontEnd owner, uint index)
        {
            _owner = owner;
            Offset = 0x1000 * (ulong)index;
            _available = *(ushort*)(Page + Available + 2);
        }

        internal ulong Offset { get; }

        internal FileDescriptor Kick { get; } = new(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

        internal FileDescriptor Call { get; } = new(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

        internal ushort UsedIndex => Volatile.Read(ref *(ushort*)(Page + Used + 2));

        private byte* Page => _owner.Ram + Offset;

        /// <summary>Makes a chain of buffers at offsets of memory available, without a kick.</summary>
        internal ushort Add(params (ulong Offset, uint Length, bool Writable)[] buffers)
        {
            ushort head = (ushort)(_descriptor % QueueSize);
            for (int i = 0; i < buffers.Length; i++)
            {
                ushort index = (ushort)(_descriptor++ % QueueSize);
                byte* at = Page + (16 * index);
                bool last = i == buffers.Length - 1;
                *(ulong*)at = GuestBase + buffers[i].Offset;
                *(uint*)(at + 8) = buffers[i].Length;
                *(ushort*)(at + 12) = (ushort)((last ? 0 : 1) | (buffers[i].Writable ? 2 : 0));
                *(ushort*)(at + 14) = (ushort)(_descriptor % QueueSize);
            }
            *(ushort*)(Page + Available + 4 + (2 * (_available % QueueSize))) = head;
            Volatile.Write(ref *(ushort*)(Page + Available + 2), ++_available);
            return head;
        }

        internal void Notify()
        {
            ulong one = 1;
            Assert.Equal(8, write(Kick.Number, &one, 8));
        }

        internal bool WaitUsed(int index, int timeoutMilliseconds = Deadline) =>
            SpinWait.SpinUntil(() => UsedIndex == (ushort)index, timeoutMilliseconds);

        internal (uint Head, uint Length) UsedEntry(int index)
        {
            byte* at = Page + Used + 4 + (8 * (index % QueueSize));
            return (*(uint*)at, *(uint*)(at + 4));
        }

        /// <summary>Sends bytes and gives the answer's, up to as many as asked for.</summary>
        internal byte[] Request(ReadOnlySpan<byte> request, int room)
        {
            const ulong out0 = 0x20_0000;
            const ulong in0 = 0x30_0000;
            int before = UsedIndex;
            request.CopyTo(new Span<byte>(_owner.Ram + out0, request.Length));
            new Span<byte>(_owner.Ram + in0, room).Fill(0xEE);
            if (room > 0)
                Add((out0, (uint)request.Length, false), (in0, (uint)room, true));
            else
                Add((out0, (uint)request.Length, false));
            Notify();
            Assert.True(WaitUsed(before + 1), "the queue gave nothing back");
            (_, uint length) = UsedEntry(before);
            return new ReadOnlySpan<byte>(_owner.Ram + in0, (int)length).ToArray();
        }

        public void Dispose()
        {
            Kick.Dispose();
            Call.Dispose();
        }
    }
}
