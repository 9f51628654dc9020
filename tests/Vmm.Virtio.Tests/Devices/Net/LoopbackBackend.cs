using System.Runtime.CompilerServices;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Devices.Net;

/// <summary>What is sent by a port comes back by it, as long as there is room. Allocates nothing for a frame.</summary>
internal sealed class LoopbackBackend : INetBackend
{
    private static readonly ConditionalWeakTable<object, LoopbackBackend> s_shared = [];

    private readonly Port[] _ports;

    public LoopbackBackend(int pairs) => _ports = [.. Enumerable.Range(0, pairs).Select(_ => new Port())];

    /// <summary>One for an owner, which lives as long as it.</summary>
    public static LoopbackBackend Of(object owner, int pairs) => s_shared.GetValue(owner, _ => new LoopbackBackend(pairs));

    public IReadOnlyList<INetPort> Ports => _ports;

    public ulong Offloads => NetFeatures.AllTso | NetFeatures.AllUso | NetFeatures.Csum | NetFeatures.GuestCsum;

    public ushort Mtu => 1500;

    public MacAddress DefaultMac { get; } = MacAddress.Random();

    public bool Carrier { get; set; } = true;

    public bool TrySetGuestOffloads(ulong offloads) => true;

    public void Dispose()
    {
        foreach (Port port in _ports)
            port.Dispose();
    }

    private sealed class Port : INetPort, IDisposable
    {
        private const int Frames = 8;

        private readonly EventNotifier _event = new();
        private readonly byte[][] _frames = [.. Enumerable.Range(0, Frames).Select(_ => new byte[0x10200])];
        private readonly int[] _lengths = new int[Frames];
        private int _first, _count;

        public int Descriptor => _event.Number;

        public nint Receive(ReadOnlySpan<GuestSegment> buffers)
        {
            if (_count == 0)
                return -LibC.EAGAIN;
            ReadOnlySpan<byte> frame = _frames[_first].AsSpan(0, _lengths[_first]);
            int done = 0;
            foreach (GuestSegment buffer in buffers)
            {
                int part = (int)Math.Min((ulong)(frame.Length - done), buffer.Length);
                frame.Slice(done, part).CopyTo(buffer.Bytes(0, part));
                done += part;
            }
            _first = (_first + 1) % Frames;
            if (_count-- == Frames)
                _event.Signal();
            return done;
        }

        public nint Send(ReadOnlySpan<GuestSegment> frame)
        {
            if (_count == Frames)
                return -LibC.EAGAIN;
            int slot = (_first + _count) % Frames;
            int done = 0;
            foreach (GuestSegment segment in frame)
            {
                int part = (int)segment.Length;
                segment.Bytes(0, part).CopyTo(_frames[slot].AsSpan(done));
                done += part;
            }
            _lengths[slot] = done;
            if (_count++ == 0)
                _event.Signal();
            return done;
        }

        public bool TrySetEnabled(bool enabled) => true;

        public void Dispose() => _event.Dispose();
    }
}
