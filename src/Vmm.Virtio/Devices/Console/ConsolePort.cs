using Vmm.Devices;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Console;

/// <summary>
/// One port: its two queues' work and what its two ends said of themselves. Everything belongs to the loop's thread, but <see cref="Receive"/>
/// and <see cref="HangUp"/>.
/// </summary>
internal sealed class ConsolePort
{
    /// <summary>After that many bytes the others of the loop have their turn.</summary>
    private const int MaximumBytesPerTurn = 64 << 10;

    /// <summary>After that many buffers too: Linux writes single characters.</summary>
    private const int MaximumRequestsPerTurn = 64;

    private readonly IBufferedCharacterSink _sink;
    private readonly ConsoleCounters _counters;
    private readonly Action _wake;
    private DescriptorChain? _transmitting;
    private VirtQueueState? _stoppedAt;
    private volatile bool _hungUp;
    private bool _closing;

    /// <summary>Makes one.</summary>
    /// <param name="sink">Takes what the guest writes; its <see cref="IBufferedCharacterSink.RoomAvailable"/> is set.</param>
    /// <param name="end">The host's end; null for the console.</param>
    /// <param name="counters">What it counts in, with the device's other ports.</param>
    /// <param name="wake">Called when there is something for the loop to do. Any thread.</param>
    internal ConsolePort(IBufferedCharacterSink sink, ConsolePortEnd? end, ConsoleCounters counters, Action wake)
    {
        _sink = sink;
        End = end;
        _counters = counters;
        _wake = wake;
        sink.RoomAvailable = wake;
    }

    internal ConsolePortEnd? End { get; }

    internal ConsoleInput Input { get; } = new(ConsoleDevice.InputCapacity);

    /// <summary>Called when there is room for input again.</summary>
    internal Action? InputRoom { get; set; }

    /// <summary>The sink takes nothing; it says when it does again.</summary>
    internal bool IsStalled { get; set; }

    /// <summary>Bytes of the next buffer of the transmit queue that are written already.</summary>
    internal ulong Transmitted { get; private set; }

    /// <summary>What control messages have made of it.</summary>
    internal ConsolePortFlags Flags { get; set; }

    /// <summary>Everything that the guest made available was written; set false by who wants to know.</summary>
    internal bool IsDry { get; set; }

    internal bool Has(ConsolePortFlags flag) => (Flags & flag) != 0;

    /// <summary>The host's end is closed, the guest has all of the input, and was not told of the end.</summary>
    internal bool IsHangUpDue => _hungUp && Input.IsEmpty && (Flags & (ConsolePortFlags.GuestOpen | ConsolePortFlags.Open | ConsolePortFlags.HungUp)) == (ConsolePortFlags.GuestOpen | ConsolePortFlags.Open);

    internal int Receive(ReadOnlySpan<byte> data)
    {
        int taken = Input.Add(data);
        if (taken > 0)
            _wake();
        return taken;
    }

    internal void HangUp()
    {
        _hungUp = true;
        _wake();
    }

    /// <summary>The guest's end was opened or closed; true when the transmit queue is to be looked at.</summary>
    internal bool SetGuestOpen(bool open)
    {
        if (open == Has(ConsolePortFlags.GuestOpen))
            return false;
        if (open)
        {
            // A close that was not told yet is told now: what was written before it and what comes are not the same stream.
            if (_closing)
                TellClosed();
            Flags |= ConsolePortFlags.GuestOpen;
            End?.OnOpened();
            return false;
        }
        Flags &= ~ConsolePortFlags.GuestOpen;
        _closing = true;
        return true;
    }

    internal void Reset()
    {
        Transmitted = 0;
        _stoppedAt = null;
        // What the guest had opened is closed by its end.
        if (_closing || Has(ConsolePortFlags.GuestOpen))
            TellClosed();
        Flags = 0;
    }

    internal ConsolePortState Save() => new(Flags, Input.ToArray(), Transmitted, _closing);

    internal void Restore(ConsolePortState state)
    {
        Input.Set(state.Input);
        Transmitted = state.Transmitted;
        Flags = state.Flags;
        _closing = state.IsClosing;
        _stoppedAt = null;
    }

    internal void TransmitStarted(VirtQueue queue)
    {
        IsStalled = false;
        // After a reset of the ring (§2.6.1) the buffer that was half written is no more.
        if (_stoppedAt is { } at && at != queue.State)
            Transmitted = 0;
    }

    internal void TransmitStopping(VirtQueue queue)
    {
        if (_transmitting is { } chain)
        {
            // The rest of it is written when the queue goes on.
            queue.Untake(chain);
            _transmitting = null;
        }
        _stoppedAt = queue.State;
    }

    /// <summary>The guest's output: a bounded part of it. True when there is more that can be written.</summary>
    internal bool Transmit(VirtQueue queue)
    {
        int bytes = 0;
        for (int requests = 0; requests < MaximumRequestsPerTurn; requests++)
        {
            if (_transmitting == null)
            {
                if (!queue.TryTake(out _transmitting))
                {
                    IsDry = true;
                    if (_closing)
                        TellClosed();
                    return false;
                }
                if (_transmitting.WritableLength > 0)
                {
                    _transmitting = null;
                    queue.Break("a buffer with output has a part that is not to be read");
                    IsDry = true;
                    return false;
                }
            }
            if (!Transmit(_transmitting, ref bytes))
                return !IsStalled;
            queue.GiveBack(_transmitting, 0);
            _transmitting = null;
            Transmitted = 0;
        }
        return true;
    }

    /// <summary>The guest's input: a bounded part of it. True when there is more.</summary>
    internal bool Deliver(VirtQueue queue)
    {
        int bytes = 0;
        for (int requests = 0; requests < MaximumRequestsPerTurn && bytes < MaximumBytesPerTurn; requests++)
        {
            if (Input.IsEmpty || !queue.TryTake(out DescriptorChain? chain))
                return false;
            if (chain.ReadableLength > 0)
            {
                queue.Break("a buffer for input has a part that the device cannot write");
                return false;
            }
            uint filled = 0;
            bool tell = false;
            ReadOnlySpan<byte> data;
            // Twice at most: the ring's end and its beginning.
            while (filled < chain.WritableLength && !(data = Input.Peek()).IsEmpty)
            {
                int written = chain.Write(filled, data);
                tell |= Input.Advance(written);
                filled += (uint)written;
                if (filled >= ConsoleDevice.InputCapacity)
                    break;
            }
            queue.GiveBack(chain, filled);
            _counters.CountInput((int)filled);
            bytes += (int)filled;
            if (tell)
                InputRoom?.Invoke();
        }
        return true;
    }

    /// <summary>The device is no more.</summary>
    internal void Disconnect()
    {
        // The machine's next life may have connected its own already.
        if (ReferenceEquals(_sink.RoomAvailable, _wake))
            _sink.RoomAvailable = null;
        End?.Disconnect(this);
    }

    private void TellClosed()
    {
        _closing = false;
        End?.OnClosed();
    }

    /// <summary>Writes what the sink and this turn have room for; true when that was all.</summary>
    private bool Transmit(DescriptorChain chain, ref int bytes)
    {
        ulong skip = Transmitted;
        foreach (GuestSegment segment in chain.Readable)
        {
            ulong at = Math.Min(skip, segment.Length);
            skip -= at;
            while (at < segment.Length)
            {
                int part = (int)Math.Min(segment.Length - at, (ulong)(MaximumBytesPerTurn - bytes));
                if (part == 0)
                    return false;
                // The sink copies; a guest that changes the bytes meanwhile changes its own output.
                int taken = _sink.TryWrite(Span(segment, at, part));
                at += (ulong)taken;
                Transmitted += (ulong)taken;
                bytes += taken;
                _counters.CountOutput(taken);
                if (taken < part)
                {
                    IsStalled = true;
                    _counters.CountStall();
                    return false;
                }
            }
        }
        return true;
    }

    // Safe: the range lies inside a segment, which was checked to be RAM when its descriptor was read.
    private static unsafe ReadOnlySpan<byte> Span(GuestSegment segment, ulong at, int length) =>
        new((byte*)segment.Host + at, length);
}
