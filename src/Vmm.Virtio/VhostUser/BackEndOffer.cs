using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>What a back-end said of itself when it was connected.</summary>
/// <param name="Features">Virtio features and <see cref="VhostUserFeatures"/>.</param>
/// <param name="ProtocolFeatures">Those of its protocol features that were accepted.</param>
/// <param name="Queues">How many queues it can have; int.MaxValue where it does not say.</param>
/// <param name="MemorySlots">How many memory regions it can have.</param>
/// <param name="SharedMemory">Bytes of each shared memory region, by id.</param>
/// <param name="Configuration">Its configuration space; empty where it has none, or is not asked.</param>
internal sealed record BackEndOffer(
    ulong Features, ulong ProtocolFeatures, int Queues, int MemorySlots, IReadOnlyDictionary<byte, ulong> SharedMemory, byte[] Configuration)
{
    /// <summary>Whether all of some protocol features were accepted.</summary>
    internal bool Has(ulong protocolFeatures) => (ProtocolFeatures & protocolFeatures) == protocolFeatures;

    /// <summary>
    /// Whether another back-end can take the place of this one without its guest noticing: it can do all that this one was used for, and
    /// what the guest has seen is the same.
    /// </summary>
    /// <param name="other">The one that is there now.</param>
    /// <param name="used">The features that the guest's driver accepted; where there is none yet, those that it may accept.</param>
    /// <returns>Null, or why not.</returns>
    internal string? Refuse(BackEndOffer other, ulong used)
    {
        if ((used & Features & ~other.Features) is not 0 and ulong missing)
            return $"it lacks the features 0x{missing:x}, which the guest uses";
        if ((Features & ~other.Features & (VhostUserFeatures.ProtocolFeatures | VhostUserFeatures.LogAll)) is not 0 and ulong between)
            return $"it lacks the features 0x{between:x} of the one before, which are between back-end and front-end";
        if ((ProtocolFeatures & ~other.ProtocolFeatures) is not 0 and ulong lost)
            return $"it lacks the protocol features {Protocol.ProtocolFeatures.Show(lost)} of the one before";
        if (other.Queues < Queues && Queues != int.MaxValue)
            return $"it has {other.Queues} queues, and the one before had {Queues}";
        if (other.Configuration.Length != Configuration.Length)
            return $"its configuration space has {other.Configuration.Length} bytes, and that of the one before had {Configuration.Length}";
        if (other.SharedMemory.Count != SharedMemory.Count)
            return $"it has {other.SharedMemory.Count} shared memory regions, and the one before had {SharedMemory.Count}";
        foreach ((byte id, ulong length) in SharedMemory)
        {
            if (!other.SharedMemory.TryGetValue(id, out ulong now) || now != length)
                return $"its shared memory region {id} has {now} bytes, and that of the one before had {length}";
        }
        return null;
    }
}
