using System.Collections.Concurrent;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Devices.Net;

/// <summary>A back-end in memory: frames that a test puts in arrive, and those that the guest sends are kept.</summary>
public sealed class MemoryBackend : INetBackend
{
    public MemoryBackend(int pairs = 1) => MemoryPorts = [.. Enumerable.Range(0, pairs).Select(_ => new MemoryPort())];

    public MemoryPort[] MemoryPorts { get; }

    public IReadOnlyList<INetPort> Ports => MemoryPorts;

    public ulong Offloads { get; init; } = NetFeatures.AllTso | NetFeatures.AllUso | NetFeatures.Csum | NetFeatures.GuestCsum;

    public ushort Mtu { get; init; } = 1500;

    public MacAddress DefaultMac { get; } = MacAddress.Random();

    public ulong GuestOffloads { get; private set; }

    public bool RefusesOffloads { get; set; }

    public bool Carrier { get; set; } = true;

    public bool TrySetGuestOffloads(ulong offloads)
    {
        if (RefusesOffloads)
            return false;
        GuestOffloads = offloads;
        return true;
    }

    public void Dispose()
    {
        foreach (MemoryPort port in MemoryPorts)
            port.Dispose();
    }
}

/// <summary>One queue of it.</summary>
public sealed class MemoryPort : INetPort, IDisposable
{
    private readonly EventNotifier _event = new();
    private readonly ConcurrentQueue<byte[]> _incoming = new();
    private volatile bool _full;
    private volatile int _error;

    /// <summary>What the guest sent, header first.</summary>
    public ConcurrentQueue<byte[]> Sent { get; } = new();

    /// <summary>Frames that nobody has read.</summary>
    public int Waiting => _incoming.Count;

    public bool Enabled { get; private set; } = true;

    public bool RefusesEnabling { get; set; }

    public int Descriptor => _event.Number;

    /// <summary>Whether Send says EAGAIN.</summary>
    public bool Full
    {
        set
        {
            _full = value;
            _event.Signal();
        }
    }

    /// <summary>What Send fails with; 0 for nothing.</summary>
    public int Error
    {
        set => _error = value;
    }

    /// <summary>A frame arrives, header first.</summary>
    public void Arrive(params byte[][] frames)
    {
        foreach (byte[] frame in frames)
            _incoming.Enqueue(frame);
        _event.Signal();
    }

    public nint Receive(ReadOnlySpan<GuestSegment> buffers)
    {
        if (!_incoming.TryDequeue(out byte[]? frame))
            return -LibC.EAGAIN;
        int done = 0;
        foreach (GuestSegment buffer in buffers)
        {
            int part = (int)Math.Min((ulong)(frame.Length - done), buffer.Length);
            frame.AsSpan(done, part).CopyTo(buffer.Bytes(0, part));
            done += part;
        }
        return done;
    }

    public nint Send(ReadOnlySpan<GuestSegment> frame)
    {
        if (_full)
            return -LibC.EAGAIN;
        if (_error != 0)
            return -_error;
        var bytes = new List<byte>();
        foreach (GuestSegment segment in frame)
            bytes.AddRange(segment.Bytes(0, (int)segment.Length));
        Sent.Enqueue([.. bytes]);
        return bytes.Count;
    }

    public bool TrySetEnabled(bool enabled)
    {
        if (RefusesEnabling && enabled != Enabled)
            return false;
        Enabled = enabled;
        return true;
    }

    public void Dispose() => _event.Dispose();
}
