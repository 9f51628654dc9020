using Vmm.Core.Events;

namespace Vmm.Core.Bus;

/// <summary>
/// Lets a guest's writes to an MMIO address signal an event without an exit to this program (KVM's ioeventfd). Any thread; nothing throws:
/// the addresses may be a guest's.
/// </summary>
public interface IDoorbellRegistrar
{
    /// <summary>Connects a doorbell. Where that fails, the writes reach the device on the bus instead, which is slower and else the same.</summary>
    /// <param name="doorbell">Signalled by a write; stays open until <see cref="Disconnect"/>.</param>
    /// <param name="address">Guest-physical.</param>
    /// <param name="length">Only writes of so many bytes count: 1, 2, 4 or 8; or 0 for any.</param>
    /// <param name="match">Only writes of this value count; null for any. Not with a length of 0.</param>
    /// <returns>Whether it is connected.</returns>
    bool TryConnect(EventNotifier doorbell, ulong address, int length, ulong? match);

    /// <summary>Undoes <see cref="TryConnect"/>; the arguments are the same.</summary>
    void Disconnect(EventNotifier doorbell, ulong address, int length, ulong? match);
}
