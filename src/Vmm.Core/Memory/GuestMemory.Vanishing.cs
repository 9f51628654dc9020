namespace Vmm.Core.Memory;

/// <summary>Memory beside RAM: files that the guest has in its address space, and of which pages can vanish at any time.</summary>
public sealed unsafe partial class GuestMemory
{
    private readonly Lock _vanishingLock = new();
    private VanishingRange[] _vanishing = [];

    /// <summary>Says where the guest sees some; replaces what the same owner said before. Any thread.</summary>
    /// <param name="owner">Whose.</param>
    /// <param name="range">Where the guest sees it; empty for nowhere. Where there is RAM too, RAM counts.</param>
    /// <param name="host">Where it is in this process. Whoever found it there may go on using it until all queues have stopped.</param>
    internal void SetVanishing(object owner, AddressRange range, nint host)
    {
        lock (_vanishingLock)
        {
            var ranges = new List<VanishingRange>(_vanishing);
            ranges.RemoveAll(other => other.Owner == owner);
            if (!range.IsEmpty)
                ranges.Add(new VanishingRange(owner, range, host));
            Volatile.Write(ref _vanishing, [.. ranges]);
        }
    }

    /// <summary>Finds some. It may only be handed to the kernel, or copied by <see cref="FaultableMemory"/>; never dereferenced.</summary>
    /// <param name="address">A guest-physical address.</param>
    /// <param name="host">Where it is in this process.</param>
    /// <param name="length">Bytes from there on.</param>
    internal bool TryFindVanishing(ulong address, out byte* host, out ulong length)
    {
        foreach (VanishingRange one in Volatile.Read(ref _vanishing))
        {
            if (!one.Range.Contains(address))
                continue;
            ulong offset = address - one.Range.Start;
            host = (byte*)one.Host + offset;
            length = one.Range.Length - offset;
            return true;
        }
        host = null;
        length = 0;
        return false;
    }

    private sealed record VanishingRange(object Owner, AddressRange Range, nint Host);
}
