using System.Globalization;
using Vmm.Core;

namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// How many mappings may live at a time: one for a machine, and one of it for each device, whose windows share it. A mapping costs entries
/// in the kernel's list of this process's mappings, which is limited (vm.max_map_count), and without which nothing works any more. Any thread.
/// </summary>
public sealed class SharedMemoryQuota
{
    /// <summary>How many mappings a device may have if nothing else is said.</summary>
    public const int DefaultPerDevice = 4096;

    // What the runtime, the guest's RAM and everything else of the process may need; measured, it is some hundreds.
    private const int Reserved = 4096;

    // Linux's default.
    private const int UsualMaximum = 65530;

    private readonly SharedMemoryQuota? _machine;
    private int _limit;
    private int _taken;

    private SharedMemoryQuota(int limit, SharedMemoryQuota? machine)
    {
        _limit = limit;
        _machine = machine;
    }

    /// <summary>The most that may live; of a machine, what this host has room for.</summary>
    public int Limit
    {
        get
        {
            // Read when it is needed first: most machines have no window.
            if (Volatile.Read(ref _limit) == 0)
                Volatile.Write(ref _limit, LimitOfHost(ReadMaximum()));
            return _limit;
        }
    }

    /// <summary>How many live.</summary>
    public int Taken => Volatile.Read(ref _taken);

    /// <summary>A machine's.</summary>
    public static SharedMemoryQuota ForMachine() => new(0, null);

    /// <summary>A device's, which is a part of the machine's.</summary>
    /// <param name="limit">The most for the device: 1 up to the machine's <see cref="Limit"/>.</param>
    /// <exception cref="VmmException">The limit is out of that range.</exception>
    public SharedMemoryQuota ForDevice(int limit = DefaultPerDevice)
    {
        if (limit < 1 || limit > Limit)
        {
            throw VmmException.Configuration(
                $"Cannot allow a device {limit} mappings of shared memory: from 1 to {Limit} are possible on this host; raise vm.max_map_count (sysctl) for more.");
        }
        return new SharedMemoryQuota(limit, this);
    }

    /// <summary>How many mappings a machine may have where the kernel allows a process so many entries: with a hole after each, they cost two.</summary>
    internal static int LimitOfHost(int maximum) => Math.Max(1, (maximum - Math.Min(Reserved, maximum / 2)) / 2);

    /// <summary>Takes one; false where there is none left.</summary>
    internal bool TryTake()
    {
        if (Interlocked.Increment(ref _taken) <= Limit && (_machine == null || _machine.TryTake()))
            return true;
        Interlocked.Decrement(ref _taken);
        return false;
    }

    /// <summary>Gives some back.</summary>
    internal void Release(int count = 1)
    {
        Interlocked.Add(ref _taken, -count);
        _machine?.Release(count);
    }

    private static int ReadMaximum()
    {
        try
        {
            return int.TryParse(File.ReadAllText("/proc/sys/vm/max_map_count"), NumberStyles.Integer, CultureInfo.InvariantCulture, out int maximum)
                ? maximum
                : UsualMaximum;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return UsualMaximum;
        }
    }
}
