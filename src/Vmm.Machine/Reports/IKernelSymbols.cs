namespace Vmm.Machine;

/// <summary>Knows the names of a kernel's functions.</summary>
public interface IKernelSymbols
{
    /// <summary>Finds the function that holds an address.</summary>
    /// <param name="address">A linear address of the guest, as it runs (with the kernel moved, where it moved itself).</param>
    /// <param name="name">The function's name.</param>
    /// <param name="offset">How many bytes the address is after its start.</param>
    /// <returns>Whether it is the kernel's code at all.</returns>
    bool TryFind(ulong address, out string name, out ulong offset);
}
