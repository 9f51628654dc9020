using System.Runtime.CompilerServices;
using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd.Rings;

/// <summary>
/// A queue as the device sees it: a split ring (VIRTIO 1.3 §2.7), served on a thread of its own between SET_VRING_KICK and GET_VRING_BASE whenever
/// its kick eventfd says so and SET_VRING_ENABLE allows it.
/// </summary>
public sealed unsafe class Vring
{
    private const ushort DescNext = 1;
    private const ushort DescWrite = 2;
    private const ushort DescIndirect = 4;
    private const int DescriptorLength = 16;
    private const ushort AvailNoInterrupt = 1;

    private readonly BackEndSession _session;
    private readonly FileDescriptor _wake = EventFd.Create();
    private readonly Lock _call = new();
    private readonly List<ushort> _batch = [];

    private FileDescriptor? _kickFd;
    private FileDescriptor? _callFd;
    private FileDescriptor? _errFd;
    private Thread? _worker;
    private InflightRegion.InflightQueue? _inflight;
    private volatile bool _stopping;
    private volatile bool _abandon;
    private volatile bool _enabled;
    private ushort _lastAvail;
    private ushort _usedIndex;
    private ushort _signalledUsed;
    private bool _signalledValid;
    private long _served;
    private long _kicks;

    internal Vring(BackEndSession session, int index)
    {
        _session = session;
        Index = index;
    }

    public int Index { get; }

    /// <summary>What SET_VRING_NUM said.</summary>
    public uint Size { get; internal set; }

    /// <summary>What SET_VRING_ADDR said.</summary>
    public VringAddress Address { get; internal set; }

    /// <summary>The available ring's index that is taken next.</summary>
    public ushort Base
    {
        get => Volatile.Read(ref _lastAvail);
        internal set => Volatile.Write(ref _lastAvail, value);
    }

    public bool IsEnabled => _enabled;

    /// <summary>Between SET_VRING_KICK and GET_VRING_BASE.</summary>
    public bool IsStarted => _worker != null;

    public bool HasCall
    {
        get
        {
            lock (_call)
                return _callFd != null;
        }
    }

    /// <summary>How many chains were given back.</summary>
    public long Served => Interlocked.Read(ref _served);

    /// <summary>How many times the kick eventfd was found readable.</summary>
    public long Kicks => Interlocked.Read(ref _kicks);

    /// <summary>Why the queue serves no more; null where it does.</summary>
    public string? Error { get; private set; }

    /// <summary>Interrupts the driver, whether or not it wants to be.</summary>
    public void Signal()
    {
        lock (_call)
        {
            if (_callFd != null)
                EventFd.Signal(_callFd);
        }
    }

    internal void SetCall(FileDescriptor? file, bool signalOnce)
    {
        lock (_call)
        {
            _callFd?.Dispose();
            _callFd = file;
        }
        if (signalOnce)
            Signal();
    }

    internal void SetErr(FileDescriptor? file)
    {
        _errFd?.Dispose();
        _errFd = file;
    }

    internal void SetEnabled(bool enabled)
    {
        _enabled = enabled;
        EventFd.Signal(_wake);
    }

    /// <summary>Starts the queue; a null descriptor means that the ring is looked at again and again.</summary>
    internal void Start(FileDescriptor? kick)
    {
        JoinWorker(abandon: false);
        _kickFd?.Dispose();
        _kickFd = kick;
        _stopping = false;
        _abandon = false;
        Error = null;
        _signalledValid = false;
        _inflight = _session.Inflight?.Queue(Index);
        _worker = new Thread(Work) { IsBackground = true, Name = $"vring{Index}" };
        _worker.Start();
    }

    /// <summary>Ends the queue once what was taken from it is given back, and closes its descriptors; the base is kept.</summary>
    internal ushort Stop()
    {
        JoinWorker(abandon: false);
        CloseDescriptors();
        return Base;
    }

    /// <summary>Ends the queue where it is, as a process that is killed would.</summary>
    internal void Abandon()
    {
        JoinWorker(abandon: true);
        CloseDescriptors();
    }

    /// <summary>Tells the worker to give nothing back any more.</summary>
    internal void AbandonSoon()
    {
        _abandon = true;
        _stopping = true;
        EventFd.Signal(_wake);
    }

    /// <summary>Whether the rings are in the memory that there is.</summary>
    internal bool CanTranslate()
    {
        MemoryTable memory = _session.HoldMemory();
        bool can = Find(memory, out _);
        memory.LetGo();
        return can;
    }

    internal void Close()
    {
        Abandon();
        _wake.Dispose();
    }

    private void CloseDescriptors()
    {
        _kickFd?.Dispose();
        _kickFd = null;
        SetCall(null, signalOnce: false);
        SetErr(null);
    }

    private void JoinWorker(bool abandon)
    {
        if (_worker == null)
            return;
        _abandon |= abandon;
        _stopping = true;
        EventFd.Signal(_wake);
        // A handler may end the session, or stop its own queue.
        if (_worker != Thread.CurrentThread)
            _worker.Join();
        _worker = null;
    }

    private void Work()
    {
        try
        {
            bool first = true;
            while (!_stopping)
            {
                bool ready = _enabled && Error == null;
                if (ready && first)
                {
                    first = false;
                    if (!Resume())
                        continue;
                }
                EventFd.WaitAny(ready ? _kickFd : null, _wake, ready && _kickFd == null ? 1 : -1);
                EventFd.Drain(_wake);
                // A ring that was enabled meanwhile is resumed first, kicked or not.
                if (!ready || !_enabled || _stopping)
                    continue;
                if (_kickFd != null)
                {
                    if (!HasKick())
                        continue;
                    Interlocked.Increment(ref _kicks);
                }
                while (Serve() && !_abandon)
                {
                    // Until the ring is empty.
                }
            }
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            // A mistake in a device model: the test is told, and its runner lives.
            Fail($"its handler failed: {e}");
        }
    }

    private bool HasKick()
    {
        var wanted = new pollfd { fd = _kickFd!.Number, events = LibC.POLLIN };
        if (LibC.poll(&wanted, 1, 0) <= 0)
            return false;
        EventFd.Drain(_kickFd);
        return true;
    }

    /// <summary>Takes the ring up where the used index says, and serves again what a predecessor took and did not give back.</summary>
    private bool Resume()
    {
        MemoryTable memory = _session.HoldMemory();
        try
        {
            if (!TryRings(memory, out Rings rings))
                return false;
            _usedIndex = Volatile.Read(ref *(ushort*)(rings.Used + 2));
            if (_inflight == null)
                return true;
            List<ushort> again = _inflight.Recover(_usedIndex);
            Base = (ushort)(again.Count > 0 ? _usedIndex + again.Count : Base);
            _session.BackEnd.CountResubmitted(again.Count);
            foreach (ushort head in again)
            {
                if (_abandon || !ServeOne(memory, rings, head))
                    return false;
            }
            return true;
        }
        finally
        {
            memory.LetGo();
        }
    }

    /// <summary>Serves what is in the ring now; false where nothing was.</summary>
    private bool Serve()
    {
        MemoryTable memory = _session.HoldMemory();
        try
        {
            if (!TryRings(memory, out Rings rings))
                return false;
            ushort available = Volatile.Read(ref *(ushort*)(rings.Available + 2));
            int pending = (ushort)(available - Base);
            if (pending > Size)
            {
                Fail($"the available index {available} is {pending} ahead of {Base}, in a ring of {Size}");
                return false;
            }
            if (pending == 0)
            {
                if (!_session.HasFeature(DeviceFeatures.EventIndex))
                    return false;
                // The driver kicks when it goes beyond this; it may have done so just before.
                Volatile.Write(ref *(ushort*)(rings.Used + 4 + (8 * Size)), Base);
                LogUsed((ulong)(4 + (8 * Size)), 2);
                Thread.MemoryBarrier();
                return Volatile.Read(ref *(ushort*)(rings.Available + 2)) != Base;
            }
            _batch.Clear();
            for (int i = 0; i < pending; i++)
            {
                ushort head = Volatile.Read(ref *(ushort*)(rings.Available + 4 + (2 * (Base % Size))));
                _inflight?.Taken(head);
                Base++;
                _batch.Add(head);
            }
            foreach (ushort head in _batch)
            {
                if (_abandon || !ServeOne(memory, rings, head))
                    return false;
            }
            return true;
        }
        finally
        {
            memory.LetGo();
        }
    }

    private bool ServeOne(MemoryTable memory, in Rings rings, ushort head)
    {
        Chain? chain = Walk(memory, rings, head);
        if (chain == null)
            return false;
        int written = _session.BackEnd.Handle(_session, this, chain);
        if (_abandon)
            return false;
        if (written == DeviceModelResult.KeepForEver)
            return true;
        LogChain(chain, written);
        _inflight?.BeforeUsed(head);
        byte* entry = rings.Used + 4 + (8 * (_usedIndex % Size));
        *(uint*)entry = head;
        *(uint*)(entry + 4) = (uint)written;
        LogUsed((ulong)(entry - rings.Used), 8);
        ushort old = _usedIndex++;
        Volatile.Write(ref *(ushort*)(rings.Used + 2), _usedIndex);
        LogUsed(2, 2);
        Thread.MemoryBarrier();
        _inflight?.AfterUsed(head, _usedIndex);
        Interlocked.Increment(ref _served);
        if (DriverWantsSignal(rings, old))
            Signal();
        return true;
    }

    private bool DriverWantsSignal(in Rings rings, ushort old)
    {
        if (!_session.HasFeature(DeviceFeatures.EventIndex))
            return (Volatile.Read(ref *(ushort*)rings.Available) & AvailNoInterrupt) == 0;
        ushort wanted = Volatile.Read(ref *(ushort*)(rings.Available + 4 + (2 * Size)));
        ushort since = _signalledValid ? _signalledUsed : old;
        bool crossed = (ushort)(_usedIndex - wanted - 1) < (ushort)(_usedIndex - since);
        bool result = crossed || !_signalledValid;
        _signalledValid = true;
        _signalledUsed = _usedIndex;
        return result;
    }

    private Chain? Walk(MemoryTable memory, in Rings rings, ushort head)
    {
        var chain = new Chain(head);
        byte* table = rings.Descriptors;
        uint count = Size;
        uint index = head;
        bool indirect = false;
        for (uint steps = 0; ; steps++)
        {
            if (index >= count || steps >= count)
                return Fail($"descriptor {index} of chain {head} is out of a table of {count}, or the chain is a loop");
            byte* at = table + (DescriptorLength * index);
            ulong address = Unsafe.ReadUnaligned<ulong>(at);
            uint length = Unsafe.ReadUnaligned<uint>(at + 8);
            ushort flags = Unsafe.ReadUnaligned<ushort>(at + 12);
            ushort next = Unsafe.ReadUnaligned<ushort>(at + 14);
            if ((flags & DescIndirect) != 0)
            {
                if (indirect || (flags & DescNext) != 0 || length == 0 || length % DescriptorLength != 0)
                    return Fail($"the indirect descriptor {index} of chain {head} is wrong (flags {flags:x}, length {length})");
                table = memory.FromGuest(address, length);
                if (table == null)
                    return Fail($"the indirect table at {address:x}+{length:x} is in no region of memory");
                count = length / DescriptorLength;
                index = 0;
                indirect = true;
                steps = uint.MaxValue;
                continue;
            }
            byte* start = length > int.MaxValue ? null : memory.FromGuest(address, length);
            if (start == null)
                return Fail($"the buffer at {address:x}+{length:x} of chain {head} is in no region of memory");
            ((flags & DescWrite) != 0 ? chain.Writable : chain.Readable).Add(new GuestBytes(start, address, (int)length));
            if ((flags & DescNext) == 0)
                return chain;
            index = next;
        }
    }

    private bool TryRings(MemoryTable memory, out Rings rings)
    {
        if (Find(memory, out rings))
            return true;
        Fail($"its rings (desc {Address.Descriptor:x}, avail {Address.Available:x}, used {Address.Used:x}, size {Size}) are in no region of memory");
        return false;
    }

    private bool Find(MemoryTable memory, out Rings rings)
    {
        rings = new Rings(
            memory.FromUser(Address.Descriptor, DescriptorLength * (ulong)Size),
            memory.FromUser(Address.Available, 6 + (2 * (ulong)Size)),
            memory.FromUser(Address.Used, 6 + (8 * (ulong)Size)));
        return Size != 0 && rings.Descriptors != null && rings.Available != null && rings.Used != null;
    }

    private void LogUsed(ulong offset, ulong length)
    {
        if ((Address.Flags & VringAddress.FlagLog) != 0 && _session.HasFeature(DeviceFeatures.LogAll))
            _session.Log?.Mark(Address.Log + offset, length);
    }

    private void LogChain(Chain chain, int written)
    {
        if (!_session.HasFeature(DeviceFeatures.LogAll))
            return;
        foreach (GuestBytes part in chain.Writable)
        {
            int length = Math.Min(part.Length, written);
            _session.Log?.Mark(part.GuestAddress, (ulong)length);
            written -= length;
        }
    }

    private Chain? Fail(string why)
    {
        Error = why;
        _session.BackEnd.AddViolation($"vring {Index}: {why}");
        if (_errFd is { IsClosed: false })
            EventFd.Signal(_errFd);
        return null;
    }

    private readonly struct Rings
    {
        internal Rings(byte* descriptors, byte* available, byte* used)
        {
            Descriptors = descriptors;
            Available = available;
            Used = used;
        }

        internal byte* Descriptors { get; }

        internal byte* Available { get; }

        internal byte* Used { get; }
    }
}
