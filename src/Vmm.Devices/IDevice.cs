using Vmm.Core;

namespace Vmm.Devices;

/// <summary>What every device can do besides answering on a bus: be reset, saved and restored.</summary>
/// <typeparam name="TState">The device's saved state: versioned plain data.</typeparam>
public interface IDevice<TState>
    where TState : class
{
    /// <summary>Puts the guest-visible registers where a power-on reset leaves them. Callable while the guest runs.</summary>
    void Reset();

    /// <summary>Takes a consistent copy of what the guest can observe. The caller has paused the vCPUs and back-ends.</summary>
    TState Save();

    /// <summary>
    /// Puts a saved state back, including the level of the interrupt line. Values that no device of this kind can hold are
    /// masked to what it can.
    /// </summary>
    /// <exception cref="VmmException">The state was written by a version this program does not know, or its shape is wrong.</exception>
    void Restore(TState state);
}
