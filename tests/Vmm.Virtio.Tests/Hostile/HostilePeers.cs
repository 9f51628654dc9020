using Vmm.Core.Events;
using Vmm.Devices;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>What is behind a console: takes all, a little of it or nothing, and keeps nothing.</summary>
internal sealed class MoodySink : IBufferedCharacterSink
{
    private int _calls;

    public Action? RoomAvailable { get; set; }

    public void Write(ReadOnlySpan<byte> data) => throw new InvalidOperationException("A device on a loop must not wait.");

    public int TryWrite(ReadOnlySpan<byte> data)
    {
        int call = Interlocked.Increment(ref _calls);
        if (call % 16 != 0)
            return call % 5 == 0 ? Math.Min(data.Length, 3) : data.Length;
        RoomAvailable?.Invoke();
        return 0;
    }
}

/// <summary>What is behind a port: moody too, with a little input, and hung up now and then.</summary>
internal sealed class MoodyPort(string name) : ConsolePortEnd(name)
{
    private readonly MoodySink _sink = new();
    private int _opened;

    public override int TryWrite(ReadOnlySpan<byte> data)
    {
        _sink.RoomAvailable = RoomAvailable;
        return _sink.TryWrite(data);
    }

    protected internal override void OnOpened()
    {
        Receive("input"u8);
        if (++_opened % 16 == 0)
            HangUp();
    }
}

/// <summary>What is behind a card: takes frames, and has one for it now and then.</summary>
internal sealed class MoodyBackend(int pairs) : INetBackend
{
    private readonly Port[] _ports = [.. Enumerable.Range(0, pairs).Select(_ => new Port())];

    public IReadOnlyList<INetPort> Ports => _ports;

    public ulong Offloads => NetFeatures.AllTso | NetFeatures.AllUso | NetFeatures.Csum | NetFeatures.GuestCsum;

    public ushort Mtu => 1500;

    public MacAddress DefaultMac { get; } = MacAddress.Random();

    public bool Carrier { get; set; } = true;

    public bool TrySetGuestOffloads(ulong offloads) => offloads % 3 != 0;

    public void Dispose()
    {
        foreach (Port port in _ports)
            port.Dispose();
    }

    private sealed class Port : INetPort, IDisposable
    {
        private const int WouldBlock = -11;

        private readonly EventNotifier _event = new();
        private int _calls;

        public int Descriptor => _event.Number;

        public nint Receive(ReadOnlySpan<GuestSegment> buffers)
        {
            int call = Interlocked.Increment(ref _calls);
            if (call % 4 == 0)
                return WouldBlock;
            int left = 12 + 14 + (call * 37 % 1500), done = 0;
            foreach (GuestSegment segment in buffers)
            {
                int part = (int)Math.Min((nuint)(left - done), segment.Length);
                segment.Bytes(0, part).Clear();
                done += part;
            }
            return done;
        }

        public nint Send(ReadOnlySpan<GuestSegment> frame)
        {
            int call = Interlocked.Increment(ref _calls);
            if (call % 8 == 0)
            {
                _event.Signal();
                return WouldBlock;
            }
            nint sum = 0;
            foreach (GuestSegment segment in frame)
                sum += (nint)segment.Length;
            return sum;
        }

        public bool TrySetEnabled(bool enabled) => true;

        public void Dispose() => _event.Dispose();
    }
}
