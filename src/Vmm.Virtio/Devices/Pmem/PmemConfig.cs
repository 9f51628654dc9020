using Vmm.Core;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Devices.Pmem;

/// <summary>A persistent memory device.</summary>
/// <param name="File">The file or block device that the guest sees as memory; or a directory, for a new nameless file in it.</param>
/// <param name="Size">
/// Bytes that the guest sees, a multiple of <see cref="MemoryLayout.PmemUnit"/>: a shorter file is made longer, a longer one is refused.
/// Null for the file's length, rounded up to that multiple. Needed for a directory.
/// </param>
/// <param name="DiscardWrites">
/// The file is opened for reading only; what the guest writes is kept in memory of its own as long as it runs, and is then gone.
/// </param>
/// <param name="Id">The name that people gave it.</param>
public sealed record PmemConfig(string File, ulong? Size = null, bool DiscardWrites = false, string Id = "pmem0")
{
    /// <summary>Checks what can be checked without the file.</summary>
    /// <exception cref="VmmException">A value is wrong.</exception>
    public void Validate()
    {
        if (string.IsNullOrEmpty(File))
            throw VmmException.Configuration($"Persistent memory '{Id}' has no file; name one (file=).");
        if (Size is { } size && (size == 0 || size % MemoryLayout.PmemUnit != 0))
            throw VmmException.Configuration($"Persistent memory '{Id}' cannot have {size} bytes: size= must be a multiple of 2M, above 0.");
    }
}
