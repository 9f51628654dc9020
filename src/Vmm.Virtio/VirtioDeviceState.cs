namespace Vmm.Virtio;

/// <summary>The saved state of a device: versioned plain data. Each device has its own, derived from this.</summary>
/// <param name="Version">Of its shape, from 1.</param>
public abstract record VirtioDeviceState(int Version);
