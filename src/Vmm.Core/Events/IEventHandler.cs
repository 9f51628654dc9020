namespace Vmm.Core.Events;

/// <summary>Serves one descriptor on the thread of an <see cref="EventLoop"/>.</summary>
public interface IEventHandler
{
    /// <summary>
    /// Called when the descriptor became ready, and again as long as it answers true. It does a bounded amount of work (a few dozen
    /// requests), never waits for another thread, allocates nothing in its steady state and never throws for what a guest or a
    /// peer did.
    /// </summary>
    /// <returns>True when there is more to do: it is called again after the loop's other handlers had their turn.</returns>
    bool Handle();
}
