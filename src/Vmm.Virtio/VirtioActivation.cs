using Vmm.Core.Memory;

namespace Vmm.Virtio;

/// <summary>What a device is given when its driver has said DRIVER_OK.</summary>
/// <param name="Features">The accepted feature bits: a subset of those that were offered.</param>
/// <param name="Memory">Guest memory that buffers may lie in.</param>
/// <param name="Host">The transport.</param>
public sealed record VirtioActivation(ulong Features, GuestMemory Memory, IVirtioHost Host)
{
    /// <summary>Whether a feature (a mask of <see cref="VirtioFeatures"/> or of the device's own) was accepted.</summary>
    public bool Has(ulong feature) => (Features & feature) == feature;
}
