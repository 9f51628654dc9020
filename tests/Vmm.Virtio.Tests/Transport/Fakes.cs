using System.Buffers.Binary;
using Vmm.Core.Bus;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;
using Vmm.Virtio.SharedMemory;

namespace Vmm.Virtio.Tests.Transport;

/// <summary>A device that serves nothing and remembers what its transport did; it fails the test that breaks the contract.</summary>
internal sealed class FakeDevice(ushort[]? queueSizes = null, SharedMemoryRegion[]? sharedMemory = null, int configurationLength = 12)
    : VirtioDevice("fake0", VirtioDeviceType.Block)
{
    private readonly ushort[] _sizes = queueSizes ?? [256, 64, 16];
    private readonly Dictionary<int, VirtQueueSetup> _running = [];
    private readonly Dictionary<int, VirtQueueState> _stopped = [];
    private volatile bool _holds;
    private volatile int _begun;
    private volatile int _starts;

    public const ulong OwnFeature = 1UL << 5;

    public List<string> Calls { get; } = [];

    public ulong Offered { get; set; } = VirtioFeatures.AllQueues | OwnFeature;

    public VirtioActivation? Activation { get; private set; }

    public IReadOnlyDictionary<int, VirtQueueSetup> Running => _running;

    public byte[] Configuration { get; } = [.. Enumerable.Range(0x10, configurationLength).Select(i => (byte)i)];

    public bool IsDisposed { get; private set; }

    /// <summary>What a stopped queue says of itself.</summary>
    public Func<VirtQueueSetup, VirtQueueState> Ends { get; set; } = setup => setup.State;

    /// <summary>Called while a queue is stopped.</summary>
    public Action<int>? Stopping { get; set; }

    public Exception? Fails { get; set; }

    /// <summary>Others serve its queues.</summary>
    public bool IsExternal { get; init; }

    /// <summary>Whoever serves its queues does not let go of them yet. Any thread.</summary>
    public bool Holds { get => _holds; set => _holds = value; }

    /// <summary>Queues that it was asked to stop, and was not told of as stopped yet.</summary>
    public HashSet<int> Begun { get; } = [];

    /// <summary>How many stops were begun so far. Any thread.</summary>
    public int StopsBegun => _begun;

    /// <summary>How many queues were started so far. Any thread.</summary>
    public int Starts => _starts;

    public override ulong OfferedFeatures => Offered;

    public override IReadOnlyList<ushort> QueueSizes => _sizes;

    public override IReadOnlyList<SharedMemoryRegion> SharedMemory { get; } = sharedMemory ?? [];

    public override bool HasExternalCalls => IsExternal;

    public override int ConfigurationLength => Configuration.Length;

    public uint Generation { get; set; }

    public override uint ConfigurationGeneration => Generation;

    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        Fail();
        Configuration.AsSpan(offset, data.Length).CopyTo(data);
    }

    public override void WriteConfiguration(int offset, ReadOnlySpan<byte> data) => data.CopyTo(Configuration.AsSpan(offset));

    /// <summary>Something that waits for the queues, while whoever serves them lets them go.</summary>
    public void LetGoDuring(Action wait)
    {
        var waiter = new Thread(() => wait());
        waiter.Start();
        Holds = false;
        Assert.True(waiter.Join(TimeSpan.FromSeconds(30)), "The queues have been let go of, and it waits still.");
    }

    public override void Activate(VirtioActivation activation)
    {
        Fail();
        Assert.Null(Activation);
        Activation = activation;
        Calls.Add($"activate {activation.Features:x}");
    }

    public override void StartQueue(in VirtQueueSetup setup)
    {
        Fail();
        Assert.NotNull(Activation);
        _running.Add(setup.Index, setup);
        Calls.Add($"start {setup.Index}");
        _starts++;
    }

    public override void BeginStopQueue(int index)
    {
        Assert.Contains(index, _running);
        if (Begun.Add(index))
            _begun++;
    }

    public override bool IsQueueStopped(int index)
    {
        Assert.Contains(index, Begun);
        return !_holds;
    }

    public override VirtQueueState StopQueue(int index)
    {
        Assert.True(Begun.Remove(index), "A queue is stopped that nobody has asked to stop.");
        Stopping?.Invoke(index);
        if (_running.Remove(index, out VirtQueueSetup setup))
        {
            _stopped[index] = Ends(setup);
            Calls.Add($"stop {index}");
        }
        return _stopped.GetValueOrDefault(index);
    }

    public override void Reset()
    {
        Assert.Empty(_running);
        Activation = null;
        _stopped.Clear();
        Calls.Add("reset");
    }

    public override VirtioDeviceState Save()
    {
        Assert.Empty(_running);
        return new FakeState(Configuration[0]);
    }

    public override void Restore(VirtioDeviceState state)
    {
        Assert.Null(Activation);
        Configuration[0] = ((FakeState)state).First;
        Calls.Add("restore");
    }

    public override void ReportCounters(ICounterSink sink)
    {
    }

    protected override void Dispose(bool disposing)
    {
        Assert.Empty(_running);
        IsDisposed = true;
        base.Dispose(disposing);
    }

    private void Fail()
    {
        if (Fails != null)
            throw Fails;
    }

    private sealed record FakeState(byte First) : VirtioDeviceState(1);
}

internal sealed class FakeRegion(byte id, ulong length) : SharedMemoryRegion(id, length)
{
    public ulong? Address { get; private set; }

    public int Moves { get; private set; }

    public override void Place(ulong? guestAddress)
    {
        if (guestAddress != Address)
            Moves++;
        Address = guestAddress;
    }
}

internal sealed class FakeDoorbells : IDoorbellRegistrar
{
    private readonly Dictionary<(ulong Address, int Length, ulong? Match), EventNotifier> _all = [];

    public bool Refuses { get; set; }

    public int Changes { get; private set; }

    public IReadOnlyList<(ulong Address, int Length, ulong? Match)> All => [.. _all.Keys.Order()];

    public bool TryConnect(EventNotifier doorbell, ulong address, int length, ulong? match)
    {
        Changes++;
        return !Refuses && _all.TryAdd((address, length, match), doorbell);
    }

    public void Disconnect(EventNotifier doorbell, ulong address, int length, ulong? match)
    {
        Changes++;
        Assert.True(_all.Remove((address, length, match), out EventNotifier? was));
        Assert.Same(doorbell, was);
    }

    /// <summary>What KVM does with a write; false when the write would exit.</summary>
    public bool Ring(ulong address, int length, ulong value)
    {
        EventNotifier? doorbell = _all.GetValueOrDefault((address, length, value)) ?? _all.GetValueOrDefault((address, 0, null));
        doorbell?.Signal();
        return doorbell != null;
    }
}

internal class FakeTrigger : IInterruptTrigger
{
    private static readonly HashSet<EventNotifier> s_everywhere = [];

    private readonly HashSet<EventNotifier> _attached = [];
    private int _raised;

    /// <summary>How often it was raised, signals of attached eventfds included.</summary>
    public int Raised
    {
        get
        {
            foreach (EventNotifier call in _attached)
                TakeSignal(call);
            return Volatile.Read(ref _raised);
        }
    }

    public IReadOnlyCollection<EventNotifier> Attached => _attached;

    /// <summary>How often something was attached.</summary>
    public int Attachments { get; private set; }

    public bool Refuses { get; set; }

    public bool IsDisposed { get; private set; }

    public void Raise() => Interlocked.Increment(ref _raised);

    public bool TryAttach(EventNotifier call)
    {
        if (Refuses)
            return false;
        lock (s_everywhere)
            Assert.True(s_everywhere.Add(call), "An eventfd is attached twice.");
        Assert.True(_attached.Add(call));
        Attachments++;
        TakeSignal(call);
        return true;
    }

    public void Detach(EventNotifier call)
    {
        if (!_attached.Remove(call))
            return;
        lock (s_everywhere)
            s_everywhere.Remove(call);
        TakeSignal(call);
    }

    public void Dispose()
    {
        Assert.Empty(_attached);
        IsDisposed = true;
    }

    // KVM does so at the signal; here it is soon enough when somebody looks.
    private void TakeSignal(EventNotifier call)
    {
        if (call.TryConsume())
            Raise();
    }
}

internal static class OtherThread
{
    /// <summary>Runs something on another thread; fails where it does not end.</summary>
    public static void Run(Action action)
    {
        var thread = new Thread(() => action()) { IsBackground = true };
        thread.Start();
        Assert.True(thread.Join(TimeSpan.FromSeconds(60)), "Two threads wait for each other.");
    }
}

internal static class BusAccess
{
    public static GuestMemory NoMemory { get; } = new([]);

    public static ulong Read(this IBusDevice device, ulong offset, int width)
    {
        Span<byte> data = stackalloc byte[8];
        data.Clear();
        device.Read(offset, data[..width]);
        return BinaryPrimitives.ReadUInt64LittleEndian(data);
    }

    public static uint Read32(this IBusDevice device, ulong offset) => (uint)device.Read(offset, 4);

    public static void Write(this IBusDevice device, ulong offset, ulong value, int width)
    {
        Span<byte> data = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(data, value);
        device.Write(offset, data[..width]);
    }

    public static void Write32(this IBusDevice device, ulong offset, uint value) => device.Write(offset, value, 4);
}
