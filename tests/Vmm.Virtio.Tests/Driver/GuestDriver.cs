using System.Buffers.Binary;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Driver;

/// <summary>
/// A guest with a driver, for tests of any <see cref="VirtioDevice"/>: plain RAM, a transport that writes down what the device asks
/// of it, and the driver's side of each queue. No KVM, no bus.
/// </summary>
/// <remarks>
/// <code>
/// using var device = new EntropyDevice(...);                          // made, and later disposed of, by the test
/// using var driver = new GuestDriver(device, RingFeatures.Of(15));    // split or packed, event index, indirect, in order
/// driver.Start();                                                     // Activate, then StartQueue for each queue
/// byte[] answer = driver.Queues[0].Transact([], writable: 64);        // add, kick, wait for the used buffer, copy
///
/// int token = driver.Queues[0].Add(request, writable: 512);           // several in flight; -1 when the ring is full
/// driver.Queues[0].Kick();                                            // rings as the device's suppression wants it
/// UsedBuffer used = driver.Queues[0].WaitUsed();                      // by interrupt, without sleeping; 30 s at most
/// byte[] bytes = driver.Queues[0].Read(used);
///
/// ulong page = driver.Arena.Allocate(4096);                           // own buffers, in any number of pieces
/// driver.Queues[0].Add([new(page, 16), new(page + 16, 512, Writable: true)], indirect: true);
///
/// driver.Configuration(0, 8);                                         // configuration space
/// driver.Host.WaitUntil(() => driver.Host.ConfigurationChanges > 0);  // Host: interrupts, NeedsReset reasons
/// driver.Restart();                                                   // StopQueue and StartQueue from the state, as pause/resume does
/// driver.Reset();                                                     // as a driver's reset; Start() begins anew
/// </code>
/// Theories over layouts: <c>[MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]</c> with an int.
/// </remarks>
public sealed class GuestDriver : IDisposable
{
    /// <summary>Where the second RAM range begins, as on a PC with more than 3 GiB.</summary>
    public const ulong HighStart = 1UL << 32;

    private readonly GuestRam _ram;

    // Of a device that others serve: their eventfds, and who passes the signals on to the host, as an irqfd would.
    private readonly EventNotifier[] _calls = [];
    private readonly EventLoop? _relay;

    /// <summary>Makes a guest for a device; nothing is told to it before <see cref="Start"/>.</summary>
    /// <param name="device">The device; stays the caller's.</param>
    /// <param name="rings">Ring features to accept, which the device must offer.</param>
    /// <param name="features">Further features to accept: the device's own. Those not offered are left out.</param>
    /// <param name="queueSize">Descriptors of each queue at most.</param>
    /// <param name="ramBytes">RAM from address 0; half as much again lies at <see cref="HighStart"/>.</param>
    public GuestDriver(VirtioDevice device, RingFeatures rings = default, ulong features = 0, ushort queueSize = 128, ulong ramBytes = 32 << 20)
    {
        Device = device;
        Features = (rings.Bits | features) & device.OfferedFeatures;
        if ((rings.Bits & ~device.OfferedFeatures) != 0)
            throw new ArgumentException($"{device.Id} does not offer 0x{rings.Bits & ~device.OfferedFeatures:x}.", nameof(rings));
        _ram = GuestRam.Allocate([(0, ramBytes), (HighStart, ramBytes / 2)], new GuestRamOptions(Shared: device.HasExternalCalls));
        Arena = new GuestArena(Memory, 0x1000, ramBytes);
        Queues = new DriverQueue[device.QueueSizes.Count];
        for (int i = 0; i < Queues.Length; i++)
        {
            ushort size = Math.Min(queueSize, device.QueueSizes[i]);
            Queues[i] = rings.Packed ? new PackedDriverQueue(Arena, Host, i, size, rings) : new SplitDriverQueue(Arena, Host, i, size, rings);
        }
        if (!device.HasExternalCalls)
            return;
        _relay = new EventLoop("calls");
        _calls = new EventNotifier[Queues.Length];
        for (int i = 0; i < _calls.Length; i++)
        {
            int queue = i;
            _calls[i] = new EventNotifier(device.HasExternalCalls);
            _relay.Invoke(() => _relay.Add(_calls[queue].Number, new Call(_calls[queue], () => Host.SignalQueue(queue))));
        }
    }

    /// <summary>The device.</summary>
    public VirtioDevice Device { get; }

    /// <summary>The accepted features.</summary>
    public ulong Features { get; }

    /// <summary>Guest memory.</summary>
    public GuestMemory Memory => _ram.Memory;

    /// <summary>Hands out guest memory below <see cref="HighStart"/>.</summary>
    public GuestArena Arena { get; }

    /// <summary>What the device asked of its transport.</summary>
    public RecordingHost Host { get; } = new();

    /// <summary>The queues.</summary>
    public DriverQueue[] Queues { get; }

    /// <summary>DRIVER_OK: activates the device and starts its queues, all of them or the ones named.</summary>
    public void Start(params int[] queues)
    {
        Device.Activate(new VirtioActivation(Features, Memory, Host));
        foreach (DriverQueue queue in Queues)
        {
            if (queues.Length == 0 || queues.Contains(queue.Index))
                Device.StartQueue(queue.Setup(VirtQueueState.Initial) with { Call = CallOf(queue) });
        }
        Device.QueuesStarted();
    }

    /// <summary>Stops all queues; gives where each stands.</summary>
    public VirtQueueState[] Stop() => [.. Queues.Select(q => Device.StopQueue(q.Index))];

    /// <summary>Stops all queues and starts them from where they stood.</summary>
    public void Restart()
    {
        VirtQueueState[] states = Stop();
        foreach (DriverQueue queue in Queues)
            Device.StartQueue(queue.Setup(states[queue.Index]) with { Call = CallOf(queue) });
        Device.QueuesStarted();
    }

    /// <summary>Resets the device, as a driver's write of 0 to its status does, and empties the rings.</summary>
    public void Reset()
    {
        Stop();
        Device.Reset();
        foreach (DriverQueue queue in Queues)
            queue.Reset();
    }

    /// <summary>Bytes of the configuration space.</summary>
    public byte[] Configuration(int offset, int length)
    {
        byte[] bytes = new byte[length];
        Device.ReadConfiguration(offset, bytes);
        return bytes;
    }

    /// <summary>A little-endian field of the configuration space, of 1, 2, 4 or 8 bytes.</summary>
    public ulong ConfigurationField(int offset, int length)
    {
        byte[] bytes = new byte[8];
        Device.ReadConfiguration(offset, bytes.AsSpan(0, length));
        return BinaryPrimitives.ReadUInt64LittleEndian(bytes);
    }

    /// <summary>Stops the queues and frees the guest's memory; the device is the caller's to dispose of, after this.</summary>
    public void Dispose()
    {
        Stop();
        foreach (DriverQueue queue in Queues)
            queue.Doorbell.Dispose();
        _relay?.Dispose();
        foreach (EventNotifier call in _calls)
            call.Dispose();
        _ram.Dispose();
        Assert.Empty(Core.Locking.LockWitness.Violations);
    }

    private EventNotifier? CallOf(DriverQueue queue) => _calls.Length == 0 ? null : _calls[queue.Index];

    private sealed class Call(EventNotifier notifier, Action signal) : IEventHandler
    {
        public bool Handle()
        {
            notifier.TryConsume();
            signal();
            return false;
        }
    }
}
