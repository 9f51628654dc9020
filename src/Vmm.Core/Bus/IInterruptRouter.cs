using Vmm.Core.Events;

namespace Vmm.Core.Bus;

/// <summary>Gives devices their ways to interrupt a guest. Any thread.</summary>
public interface IInterruptRouter
{
    /// <summary>Connects an edge-triggered interrupt to a pin of the interrupt controller, which is the caller's alone.</summary>
    /// <param name="gsi">The pin's global system interrupt.</param>
    /// <exception cref="VmmException">The host refuses, or the process has no descriptor left.</exception>
    IInterruptTrigger ConnectPin(uint gsi);

    /// <summary>Makes a message-signalled interrupt that goes nowhere yet.</summary>
    /// <exception cref="VmmException">The host refuses, or its routes or the process's descriptors ran out.</exception>
    IMessageInterrupt CreateMessage();

    /// <summary>Connects one more wire to a level-triggered pin, which is high while any of its wires is.</summary>
    /// <param name="gsi">The pin's global system interrupt; not one that <see cref="ConnectPin"/> was called for.</param>
    IInterruptLine ConnectShared(uint gsi);
}

/// <summary>An interrupt that has no level: each raise is one. Any thread.</summary>
public interface IInterruptTrigger : IDisposable
{
    /// <summary>Interrupts the guest. Never waits.</summary>
    void Raise();

    /// <summary>
    /// From now on each signal of the eventfd, whoever gives it, is a raise that does not pass through this process. One that waits there
    /// already is raised, once, and consumed. Several eventfds may be attached to one interrupt, but each to one interrupt only.
    /// </summary>
    /// <param name="call">Not disposed of before <see cref="Detach"/>, and consumed by nobody else meanwhile.</param>
    /// <returns>False where the host refuses: nothing is attached then.</returns>
    bool TryAttach(EventNotifier call);

    /// <summary>
    /// Undoes <see cref="TryAttach"/>, also where that was refused: when it returns, every earlier signal has been raised, and later ones
    /// stay in the eventfd.
    /// </summary>
    void Detach(EventNotifier call);
}

/// <summary>
/// A message-signalled interrupt. A raise while it goes nowhere is lost, or comes by the route that is set next: KVM looks for the route
/// later then, on a thread of its own.
/// </summary>
public interface IMessageInterrupt : IInterruptTrigger
{
    /// <summary>Says what a raise sends, from now on. The same message again costs nothing.</summary>
    /// <param name="address">As the guest wrote it.</param>
    /// <param name="data">As the guest wrote it.</param>
    /// <returns>False where no interrupt controller takes such a message: raises go nowhere then.</returns>
    bool Route(ulong address, uint data);

    /// <summary>Raises go nowhere from now on.</summary>
    void Unroute();
}
