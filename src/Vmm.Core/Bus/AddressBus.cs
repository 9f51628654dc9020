using System.Diagnostics.CodeAnalysis;
using Vmm.Core.Locking;

namespace Vmm.Core.Bus;

/// <summary>
/// Port or MMIO dispatch: finds the device behind an address. Lookups take no lock and allocate nothing; they read one
/// immutable snapshot that <see cref="Add"/> and <see cref="Remove"/> replace.
/// </summary>
public sealed class AddressBus
{
    private readonly OrderedLock _writers = new(LockRank.Bus);
    private Snapshot _snapshot = Snapshot.Empty;
    private long _unclaimed;

    /// <summary>Makes an empty bus.</summary>
    /// <param name="name">Named in errors: "port" or "MMIO".</param>
    public AddressBus(string name) => Name = name;

    /// <summary>The bus's name in errors and logs.</summary>
    public string Name { get; }

    /// <summary>How many accesses found nobody.</summary>
    public long Unclaimed => Volatile.Read(ref _unclaimed);

    /// <summary>Gives [<paramref name="start"/>, +<paramref name="length"/>) to a device.</summary>
    /// <exception cref="VmmException">The range is empty, wraps around, or overlaps another device's.</exception>
    public void Add(ulong start, ulong length, IBusDevice device, string deviceName)
    {
        ArgumentNullException.ThrowIfNull(device);
        if (!IsRange(start, length))
            throw VmmException.Configuration($"Cannot put {deviceName} on the {Name} bus at 0x{start:x}: the length 0x{length:x} is empty or wraps around.");
        if (Insert(start, length, device, deviceName) is { } other)
            throw VmmException.Configuration($"Cannot put {deviceName} on the {Name} bus at 0x{start:x}: {other} is there already.");
    }

    /// <summary>The same at an address that a guest chose: false, and nothing changed, where it cannot be.</summary>
    public bool TryAdd(ulong start, ulong length, IBusDevice device, string deviceName) => TryAdd(start, length, device, deviceName, out _);

    /// <summary>The same at an address that a guest chose.</summary>
    /// <param name="start">The first address.</param>
    /// <param name="length">How many there are.</param>
    /// <param name="device">What answers there.</param>
    /// <param name="deviceName">Named in errors.</param>
    /// <param name="there">Where it is refused: which device has some of the range; null for a range that is empty or wraps around.</param>
    /// <returns>False, and nothing changed, where the range is not free.</returns>
    public bool TryAdd(ulong start, ulong length, IBusDevice device, string deviceName, out string? there)
    {
        ArgumentNullException.ThrowIfNull(device);
        there = null;
        if (!IsRange(start, length))
            return false;
        there = Insert(start, length, device, deviceName);
        return there == null;
    }

    /// <summary>Takes back the range that starts at <paramref name="start"/>; false when none does.</summary>
    public bool Remove(ulong start)
    {
        using (_writers.Enter())
        {
            Snapshot old = _snapshot;
            int at = Array.BinarySearch(old.Start, start);
            if (at < 0)
                return false;
            Volatile.Write(ref _snapshot, new Snapshot(
                [.. old.Start[..at], .. old.Start[(at + 1)..]],
                [.. old.Last[..at], .. old.Last[(at + 1)..]],
                [.. old.Devices[..at], .. old.Devices[(at + 1)..]],
                [.. old.Names[..at], .. old.Names[(at + 1)..]]));
            return true;
        }
    }

    /// <summary>A guest's read. Where nobody answers (also past the end of a range) it gives ones.</summary>
    public void Read(ulong address, Span<byte> data)
    {
        if (TryFind(address, data.Length, out IBusDevice? device, out ulong offset))
        {
            device.Read(offset, data);
            return;
        }
        data.Fill(0xFF);
        Interlocked.Increment(ref _unclaimed);
    }

    /// <summary>A guest's write. Where nobody answers it is dropped.</summary>
    public void Write(ulong address, ReadOnlySpan<byte> data)
    {
        if (TryFind(address, data.Length, out IBusDevice? device, out ulong offset))
            device.Write(offset, data);
        else
            Interlocked.Increment(ref _unclaimed);
    }

    /// <summary>The device whose range holds the whole access, and the access's offset in it.</summary>
    public bool TryFind(ulong address, int length, [NotNullWhen(true)] out IBusDevice? device, out ulong offset)
    {
        Snapshot s = Volatile.Read(ref _snapshot);
        int at = s.CountOfStartsUpTo(address) - 1;
        if (at < 0 || s.Last[at] < address || s.Last[at] - address < (ulong)(length - 1))
        {
            device = null;
            offset = 0;
            return false;
        }
        device = s.Devices[at];
        offset = address - s.Start[at];
        return true;
    }

    /// <summary>What is on the bus, in the order of addresses.</summary>
    public IReadOnlyList<(ulong Start, ulong Last, string Name)> Ranges
    {
        get
        {
            Snapshot s = Volatile.Read(ref _snapshot);
            return [.. s.Start.Zip(s.Last, s.Names)];
        }
    }

    private static bool IsRange(ulong start, ulong length) => length != 0 && unchecked(start + (length - 1)) >= start;

    /// <summary>Takes the range; or gives the name of who has a part of it.</summary>
    private string? Insert(ulong start, ulong length, IBusDevice device, string deviceName)
    {
        using (_writers.Enter())
        {
            Snapshot old = _snapshot;
            int at = old.CountOfStartsUpTo(start + (length - 1));
            if (at > 0 && old.Last[at - 1] >= start)
                return old.Names[at - 1];
            Volatile.Write(ref _snapshot, new Snapshot(
                [.. old.Start[..at], start, .. old.Start[at..]],
                [.. old.Last[..at], start + (length - 1), .. old.Last[at..]],
                [.. old.Devices[..at], device, .. old.Devices[at..]],
                [.. old.Names[..at], deviceName, .. old.Names[at..]]));
            return null;
        }
    }

    private sealed record Snapshot(ulong[] Start, ulong[] Last, IBusDevice[] Devices, string[] Names)
    {
        public static readonly Snapshot Empty = new([], [], [], []);

        /// <summary>The number of ranges that start at or below an address.</summary>
        public int CountOfStartsUpTo(ulong address)
        {
            ulong[] starts = Start;
            int low = 0, high = starts.Length;
            while (low < high)
            {
                int middle = (int)((uint)(low + high) >> 1);
                if (starts[middle] <= address)
                    low = middle + 1;
                else
                    high = middle;
            }
            return low;
        }
    }
}
