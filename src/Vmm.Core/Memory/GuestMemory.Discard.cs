namespace Vmm.Core.Memory;

/// <summary>Memory that the guest does not need for now, given back to the host.</summary>
public sealed unsafe partial class GuestMemory
{
    /// <summary>
    /// Gives the host memory behind [address, +length) back, whatever it is made of: it reads as zero from then on, and is taken from
    /// the host again where it is touched. Only whole pages of the backing are given back; what surrounds them keeps its bytes.
    /// </summary>
    /// <param name="address">Where; any alignment.</param>
    /// <param name="length">Bytes; may span ranges that touch.</param>
    /// <param name="discarded">Bytes that were given back or were not there anyway, also where the answer is false.</param>
    /// <returns>False where a byte is not RAM, or the host refused.</returns>
    internal bool TryDiscard(ulong address, ulong length, out ulong discarded)
    {
        discarded = 0;
        while (length > 0)
        {
            GuestRegion? region = RegionAt(address);
            if (region == null)
                return false;
            ulong chunk = Math.Min(length, region.End - address);
            ulong first = (ulong)(region.Host + (address - region.Start));
            ulong end = (first + chunk) & ~(region.PageSize - 1);
            first = (first + region.PageSize - 1) & ~(region.PageSize - 1);
            if (first < end)
            {
                if (!region.TryDiscard(first - (ulong)region.Host, end - first))
                    return false;
                discarded += end - first;
            }
            address += chunk;
            length -= chunk;
        }
        return true;
    }

    /// <summary>The guest's address of a byte of RAM that is mapped here; false where none is.</summary>
    internal bool TryGetAddress(nint host, out ulong address)
    {
        foreach (GuestRegion region in _regions)
        {
            if (host >= region.HostAddress && (ulong)(host - region.HostAddress) < region.Length)
            {
                address = region.Start + (ulong)(host - region.HostAddress);
                return true;
            }
        }
        address = 0;
        return false;
    }
}
