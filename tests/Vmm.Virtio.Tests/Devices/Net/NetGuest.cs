using Vmm.Core.Events;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Net;

/// <summary>A guest with a network card: its driver, the card, its back-end and the threads.</summary>
public sealed class NetGuest : IDisposable
{
    public const byte Ok = 0;
    public const byte Error = 1;

    private readonly EventLoop[] _loops;
    private readonly bool _ownsBackend;

    /// <summary>Makes all and starts it.</summary>
    /// <param name="config">Options; null for those of a card with as many pairs as the back-end has ports.</param>
    /// <param name="backend">Null for one in memory.</param>
    /// <param name="rings">Ring features.</param>
    /// <param name="without">Features of the card that are not accepted.</param>
    /// <param name="queueSize">Descriptors.</param>
    /// <param name="loops">Threads.</param>
    public NetGuest(
        NetConfig? config = null, INetBackend? backend = null, RingFeatures rings = default, ulong without = 0, ushort queueSize = 128, int loops = 1)
    {
        _ownsBackend = backend == null;
        Backend = backend ?? new MemoryBackend(config?.Pairs ?? 1);
        config ??= new NetConfig { Id = "net0", NumQueues = 2 * Backend.Ports.Count };
        config.Validate();
        _loops = [.. Enumerable.Range(0, loops).Select(i => new EventLoop($"net-test{i}"))];
        Device = new NetDevice(config, Backend, _loops);
        Driver = new GuestDriver(Device, rings, Device.OfferedFeatures & ~VirtioFeatures.AllQueues & ~without, queueSize);
        Driver.Start();
    }

    public INetBackend Backend { get; }

    public MemoryPort[] Ports => ((MemoryBackend)Backend).MemoryPorts;

    public NetDevice Device { get; }

    public GuestDriver Driver { get; }

    public DriverQueue Receive => Driver.Queues[0];

    public DriverQueue Transmit => Driver.Queues[1];

    public DriverQueue Control => Driver.Queues[(Driver.Features & NetFeatures.MultiQueue) != 0 ? Driver.Queues.Length - 1 : 2];

    /// <summary>The answer to a command.</summary>
    public byte Command(int @class, int command, params byte[] data) => Control.Transact([(byte)@class, (byte)command, .. data], 1)[0];

    /// <summary>
    /// When it returns, one-thread guests have served every doorbell and frame from before: descriptors are served in the order in which
    /// they became ready, and this waits for one more.
    /// </summary>
    public void Settle()
    {
        for (int i = 0; i < 2; i++)
            Assert.Equal(Error, Command(0xFF, 0xFF));
    }

    /// <summary>Makes receive buffers of one segment each available.</summary>
    public void Provide(int count, int length, DriverQueue? queue = null)
    {
        queue ??= Receive;
        for (int i = 0; i < count; i++)
            Assert.True(queue.Add([], length) >= 0);
        queue.Kick();
    }

    /// <summary>The next frame that was received, of all its buffers, and how many those were.</summary>
    public (byte[] Frame, int Buffers) NextFrame(DriverQueue? queue = null)
    {
        queue ??= Receive;
        byte[] first = queue.Read(queue.WaitUsed());
        int count = first[10] | (first[11] << 8);
        List<byte> frame = [.. first];
        for (int i = 1; i < count; i++)
            frame.AddRange(queue.Read(queue.WaitUsed()));
        return ([.. frame], count);
    }

    /// <summary>Sends a frame, header first, and waits until the card is done with it.</summary>
    public void Send(byte[] frame, DriverQueue? queue = null)
    {
        queue ??= Transmit;
        Assert.True(queue.Add(frame, 0) >= 0);
        queue.Kick();
        queue.WaitUsed();
    }

    public long Counter(string name)
    {
        var sink = new Counters();
        Device.ReportCounters(sink);
        return sink.Values[name];
    }

    public void Dispose()
    {
        Driver.Dispose();
        Device.Dispose();
        foreach (EventLoop loop in _loops)
            loop.Dispose();
        if (_ownsBackend)
            Backend.Dispose();
    }

    private sealed class Counters : ICounterSink
    {
        public Dictionary<string, long> Values { get; } = [];

        public void Add(string name, long value) => Values.Add(name, value);
    }
}
