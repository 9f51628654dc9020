using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Core.Events;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// A function's MSI-X table and its pending bits (PCI Local Bus 3.0 section 6.8.2). A driver's side is called under the transport's lock;
/// <see cref="Raise"/> by any thread, without one.
/// </summary>
/// <remarks>
/// A vector is raised by <see cref="Raise"/>, which keeps a pending bit of its own, and by the eventfds that are connected to it (calls).
/// Those are attached to its message while it could be sent, and are their own pending bits while it could not.
/// </remarks>
internal sealed class MsixTable : IDisposable
{
    /// <summary>Bytes of an entry.</summary>
    internal const int EntrySize = 16;

    /// <summary>The most that a function may have.</summary>
    internal const int MaximumVectors = 2048;

    private const int WordsPerEntry = 4;
    private const int ControlWord = 3;
    private const uint MaskBit = 1;

    // Bits of a vector's state. It sends while neither mask is set.
    private const int Masked = 1;
    private const int FunctionMasked = 2;
    private const int Pending = 4;

    // Messages to anything but a local APIC are writes to memory as a processor would do them. Nobody wants those.
    private const ulong ApicMask = 0xFFF0_0000;
    private const ulong ApicAddress = 0xFEE0_0000;

    private readonly uint[] _words;
    private readonly int[] _states;
    private readonly IMessageInterrupt[] _messages;

    // By vector; null until one is connected to it.
    private readonly List<EventNotifier>?[] _calls;

    // Whether the calls of a vector are attached to its message: it is routed and not masked.
    private readonly bool[] _open;
    private bool _functionMasked = true;

    /// <summary>Makes one with all vectors masked, as after a reset.</summary>
    /// <param name="vectors">1 to <see cref="MaximumVectors"/>.</param>
    /// <param name="router">Makes a message for each.</param>
    internal MsixTable(int vectors, IInterruptRouter router)
    {
        _words = new uint[vectors * WordsPerEntry];
        _states = new int[vectors];
        _messages = new IMessageInterrupt[vectors];
        _calls = new List<EventNotifier>?[vectors];
        _open = new bool[vectors];
        try
        {
            for (int i = 0; i < vectors; i++)
                _messages[i] = router.CreateMessage();
        }
        catch
        {
            Dispose();
            throw;
        }
        Clear();
    }

    /// <summary>Told where the host refuses to attach a call: its interrupts are lost.</summary>
    internal Action? Refused { get; set; }

    /// <summary>How many vectors there are.</summary>
    internal int Count => _states.Length;

    /// <summary>Bytes of the pending bit array.</summary>
    internal int PendingLength => (Count + 63) / 64 * sizeof(ulong);

    /// <summary>Sends a vector's message, or keeps it pending while it is masked.</summary>
    internal void Raise(int vector)
    {
        if ((uint)vector >= (uint)_states.Length)
            return;
        ref int state = ref _states[vector];
        while (true)
        {
            int now = Volatile.Read(ref state);
            if ((now & (Masked | FunctionMasked)) == 0)
            {
                _messages[vector].Raise();
                return;
            }
            // It may have been unmasked meanwhile: then nobody would look at the bit.
            if (Interlocked.CompareExchange(ref state, now | Pending, now) == now)
                return;
        }
    }

    /// <summary>Lets an eventfd raise a vector that exists. What it has signalled before counts.</summary>
    internal void Connect(int vector, EventNotifier call)
    {
        (_calls[vector] ??= []).Add(call);
        if (_open[vector])
            Attach(vector, call);
    }

    /// <summary>Undoes <see cref="Connect"/>: later signals stay in the eventfd.</summary>
    internal void Disconnect(int vector, EventNotifier call)
    {
        if (_calls[vector]!.Remove(call) && _open[vector])
            _messages[vector].Detach(call);
    }

    /// <summary>A driver's read of the table: aligned, of 4 or 8 bytes; ones for anything else.</summary>
    internal void ReadTable(int offset, Span<byte> data)
    {
        data.Fill(0xFF);
        if (!IsTableAccess(offset, data.Length))
            return;
        for (int i = 0; i < data.Length; i += sizeof(uint))
            BinaryPrimitives.WriteUInt32LittleEndian(data[i..], _words[(offset + i) / sizeof(uint)]);
    }

    /// <summary>A driver's write, with the same rules.</summary>
    internal void WriteTable(int offset, ReadOnlySpan<byte> data)
    {
        if (!IsTableAccess(offset, data.Length))
            return;
        for (int i = 0; i < data.Length; i += sizeof(uint))
        {
            int word = (offset + i) / sizeof(uint);
            uint value = BinaryPrimitives.ReadUInt32LittleEndian(data[i..]);
            _words[word] = word % WordsPerEntry == ControlWord ? value & MaskBit : value;
        }
        Update(offset / EntrySize);
    }

    /// <summary>A driver's read of the pending bits.</summary>
    internal void ReadPending(int offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            int bits = 0;
            for (int bit = 0; bit < 8; bit++)
            {
                int vector = (offset + i) * 8 + bit;
                if (vector < Count && IsPending(vector))
                    bits |= 1 << bit;
            }
            data[i] = (byte)bits;
        }
    }

    /// <summary>Whether the function may send at all: MSI-X is enabled and the function is not masked.</summary>
    internal void SetFunctionMask(bool masked)
    {
        if (_functionMasked == masked)
            return;
        _functionMasked = masked;
        for (int i = 0; i < Count; i++)
            Update(i);
    }

    /// <summary>Forgets what a vector had pending: nobody wants it any more.</summary>
    internal void ClearPending(int vector)
    {
        if ((uint)vector < (uint)Count)
            Interlocked.And(ref _states[vector], ~Pending);
    }

    /// <summary>Forgets all pending bits.</summary>
    internal void ClearPending()
    {
        for (int i = 0; i < Count; i++)
            ClearPending(i);
    }

    /// <summary>Puts the table where a reset of the function leaves it; the function mask stays its owner's.</summary>
    internal void Clear()
    {
        Array.Clear(_words);
        for (int i = 0; i < Count; i++)
        {
            _words[i * WordsPerEntry + ControlWord] = MaskBit;
            Update(i);
            ClearPending(i);
            // Its calls are detached: it is masked.
            _messages[i].Unroute();
        }
    }

    internal MsixState Save() => new([.. _words], [.. Enumerable.Range(0, Count).Select(IsPending)]);

    /// <summary>Puts a saved table back; what was pending and is not masked is sent.</summary>
    internal void Restore(MsixState state, string device)
    {
        if (state.Entries.Length != _words.Length || state.Pending.Length != Count)
        {
            throw VmmException.Configuration(
                $"Cannot restore {device}: its saved MSI-X table has {state.Pending.Length} vectors, and the device has {Count}. Restore with the configuration that it was saved with.");
        }
        for (int i = 0; i < _words.Length; i++)
            _words[i] = i % WordsPerEntry == ControlWord ? state.Entries[i] & MaskBit : state.Entries[i];
        for (int i = 0; i < Count; i++)
        {
            // Masked first, so that a route is set before anything is sent.
            Volatile.Write(ref _states[i], Masked | (state.Pending[i] ? Pending : 0));
            Update(i);
        }
    }

    public void Dispose()
    {
        foreach (IMessageInterrupt? message in _messages)
            message?.Dispose();
    }

    private bool IsTableAccess(int offset, int length) =>
        length is sizeof(uint) or sizeof(ulong) && offset % length == 0 && offset >= 0 && offset <= _words.Length * sizeof(uint) - length;

    private bool IsPending(int vector)
    {
        if ((Volatile.Read(ref _states[vector]) & Pending) != 0)
            return true;
        if (_open[vector] || _calls[vector] is not { } calls)
            return false;
        foreach (EventNotifier call in calls)
        {
            if (call.IsSignalled)
                return true;
        }
        return false;
    }

    /// <summary>
    /// Makes a vector's state follow its entry and the function's mask. Its message is routed only where it could be sent: drivers
    /// write an entry word by word, masked.
    /// </summary>
    private void Update(int vector)
    {
        ReadOnlySpan<uint> entry = _words.AsSpan(vector * WordsPerEntry, WordsPerEntry);
        int masks = ((entry[ControlWord] & MaskBit) != 0 ? Masked : 0) | (_functionMasked ? FunctionMasked : 0);
        bool open = false;
        if (masks == 0)
        {
            ulong address = entry[0] & ~3u | (ulong)entry[1] << 32;
            if ((address & ApicMask) == ApicAddress)
            {
                open = _messages[vector].Route(address, entry[2]);
            }
            else
            {
                // First, or what they signal meanwhile would be lost.
                SetOpen(vector, false);
                _messages[vector].Unroute();
            }
        }
        ref int state = ref _states[vector];
        int now, next;
        do
        {
            now = Volatile.Read(ref state);
            next = masks | (masks != 0 ? now & Pending : 0);
        }
        while (Interlocked.CompareExchange(ref state, next, now) != now);
        if (masks == 0 && (now & Pending) != 0)
            _messages[vector].Raise();
        SetOpen(vector, open);
    }

    /// <summary>Attaches the calls of a vector to its message, which then has a route, or detaches them.</summary>
    private void SetOpen(int vector, bool open)
    {
        if (_open[vector] == open)
            return;
        _open[vector] = open;
        if (_calls[vector] is not { } calls)
            return;
        foreach (EventNotifier call in calls)
        {
            if (open)
                Attach(vector, call);
            else
                _messages[vector].Detach(call);
        }
    }

    private void Attach(int vector, EventNotifier call)
    {
        if (!_messages[vector].TryAttach(call))
            Refused?.Invoke();
    }
}
