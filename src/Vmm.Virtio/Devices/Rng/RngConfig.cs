namespace Vmm.Virtio.Devices.Rng;

/// <summary>An entropy device.</summary>
/// <param name="Id">The name that people gave it.</param>
/// <param name="Source">
/// A character device to read entropy from, such as <c>/dev/hwrng</c>; null for the kernel's generator (getrandom(2)).
/// </param>
public sealed record RngConfig(string Id = "rng0", string? Source = null);
