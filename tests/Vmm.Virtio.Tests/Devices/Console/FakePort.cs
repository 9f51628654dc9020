using Vmm.Virtio.Devices.Console;

namespace Vmm.Virtio.Tests.Devices.Console;

/// <summary>The host's end of a port, with a sink of bounded room, that writes down what happens to it.</summary>
internal sealed class FakePort(string name, int capacity = 1 << 20) : ConsolePortEnd(name)
{
    private readonly FakeSink _sink = new(capacity);
    private int _opened, _closed, _room;

    public FakeSink Sink => _sink;

    public int Opened => Volatile.Read(ref _opened);

    public int Closed => Volatile.Read(ref _closed);

    public int Room => Volatile.Read(ref _room);

    /// <summary>What was in the sink when the end was closed.</summary>
    public int AtClose { get; private set; }

    public override int TryWrite(ReadOnlySpan<byte> data)
    {
        _sink.RoomAvailable = RoomAvailable;
        return _sink.TryWrite(data);
    }

    protected internal override void OnOpened() => Interlocked.Increment(ref _opened);

    protected internal override void OnClosed()
    {
        AtClose = _sink.Count;
        Interlocked.Increment(ref _closed);
    }

    protected internal override void OnInputRoom() => Interlocked.Increment(ref _room);
}
