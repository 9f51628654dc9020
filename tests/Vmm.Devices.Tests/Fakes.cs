using Vmm.Core.Bus;

namespace Vmm.Devices.Tests;

/// <summary>A wire that remembers its level and counts its edges.</summary>
internal sealed class FakeLine : IInterruptLine
{
    public bool High { get; private set; }

    public int RisingEdges { get; private set; }

    public void Set(bool asserted)
    {
        if (asserted && !High)
            RisingEdges++;
        High = asserted;
    }
}

internal sealed class FakeEvents : IGuestEventSink
{
    public List<GuestEvent> Seen { get; } = new(1 << 16);

    public int Count { get; private set; }

    public void Signal(GuestEvent guestEvent)
    {
        Count++;
        if (Seen.Count < Seen.Capacity)
            Seen.Add(guestEvent);
    }
}

/// <summary>Keeps what it gets.</summary>
internal sealed class ListSink : ICharacterSink
{
    public List<byte> Bytes { get; } = [];

    public void Write(ReadOnlySpan<byte> data)
    {
        foreach (byte value in data)
            Bytes.Add(value);
    }
}

/// <summary>Checks that it gets the sequence 0, 1, 2, …, and keeps nothing.</summary>
internal sealed class SequenceSink : ICharacterSink
{
    public long Count { get; private set; }

    public long Wrong { get; private set; }

    public void Write(ReadOnlySpan<byte> data)
    {
        foreach (byte value in data)
        {
            if (value != (byte)(Count * 31 >> 3))
                Wrong++;
            Count++;
        }
    }
}

/// <summary>A clock that moves only when told, with timers that fire while it moves.</summary>
internal sealed class ManualClock : TimeProvider
{
    private readonly List<ManualTimer> _timers = [];

    public DateTimeOffset Now { get; set; } = new(2026, 3, 14, 15, 9, 26, 500, TimeSpan.Zero);

    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    public override DateTimeOffset GetUtcNow() => Now;

    public override long GetTimestamp() => Now.UtcTicks;

    public void Advance(TimeSpan by)
    {
        DateTimeOffset end = Now + by;
        while (true)
        {
            ManualTimer? next = null;
            foreach (ManualTimer timer in _timers)
            {
                if (timer.Due is DateTimeOffset due && due <= end && (next is null || due < next.Due))
                    next = timer;
            }
            if (next is null)
                break;
            Now = next.Due!.Value > Now ? next.Due.Value : Now;
            next.Due = null;
            next.Callback(next.State);
        }
        Now = end;
    }

    public int Armed => _timers.Count(t => t.Due is not null);

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = new ManualTimer(this, callback, state);
        timer.Change(dueTime, period);
        _timers.Add(timer);
        return timer;
    }

    private sealed class ManualTimer(ManualClock clock, TimerCallback callback, object? state) : ITimer
    {
        public TimerCallback Callback => callback;

        public object? State => state;

        public DateTimeOffset? Due { get; set; }

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            Due = dueTime == Timeout.InfiniteTimeSpan ? null : clock.Now + dueTime;
            return true;
        }

        public void Dispose() => Due = null;

        public ValueTask DisposeAsync()
        {
            Due = null;
            return ValueTask.CompletedTask;
        }
    }
}

internal static class BusDeviceExtensions
{
    public static byte ReadByte(this IBusDevice device, ulong offset)
    {
        Span<byte> data = stackalloc byte[1];
        device.Read(offset, data);
        return data[0];
    }

    public static void WriteByte(this IBusDevice device, ulong offset, int value)
    {
        ReadOnlySpan<byte> data = [(byte)value];
        device.Write(offset, data);
    }

    public static uint ReadUInt32(this IBusDevice device, ulong offset)
    {
        Span<byte> data = stackalloc byte[4];
        device.Read(offset, data);
        return BitConverter.ToUInt32(data);
    }

    public static void WriteUInt32(this IBusDevice device, ulong offset, uint value)
    {
        Span<byte> data = stackalloc byte[4];
        BitConverter.TryWriteBytes(data, value);
        device.Write(offset, data);
    }

    public static ushort ReadUInt16(this IBusDevice device, ulong offset)
    {
        Span<byte> data = stackalloc byte[2];
        device.Read(offset, data);
        return BitConverter.ToUInt16(data);
    }

    public static void WriteUInt16(this IBusDevice device, ulong offset, int value)
    {
        Span<byte> data = stackalloc byte[2];
        BitConverter.TryWriteBytes(data, (ushort)value);
        device.Write(offset, data);
    }
}
