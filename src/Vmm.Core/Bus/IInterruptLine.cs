namespace Vmm.Core.Bus;

/// <summary>A wire into the interrupt controller. Callable from any thread.</summary>
public interface IInterruptLine
{
    /// <summary>Drives the line high (<see langword="true"/>) or low. Setting the level it already has is cheap.</summary>
    void Set(bool asserted);
}
