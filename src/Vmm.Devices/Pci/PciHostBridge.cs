namespace Vmm.Devices.Pci;

/// <summary>
/// The host bridge at 00:00.0, which a guest looks for before it believes that there is a PCI bus (Linux: pci_sanity_check). It
/// does nothing else; its identity is the one that Cloud Hypervisor's has, which no driver claims.
/// </summary>
public sealed class PciHostBridge : IPciFunction, IDevice<PciConfigurationState>
{
    /// <summary>What the bridge is: class 06 (bridge), subclass 00 (host).</summary>
    public static readonly PciIdentity Identity = new(VendorId: 0x8086, DeviceId: 0x0D57, ClassCode: 0x060000);

    private readonly PciConfigurationSpace _configuration = new(Identity);
    private readonly Lock _lock = new();

    /// <inheritdoc/>
    public void ReadConfiguration(int offset, Span<byte> data)
    {
        lock (_lock)
            _configuration.Read(offset, data);
    }

    /// <inheritdoc/>
    public void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
            _configuration.Write(offset, data);
    }

    /// <inheritdoc cref="IPciFunction.Reset"/>
    public void Reset()
    {
        lock (_lock)
            _configuration.Reset();
    }

    /// <inheritdoc/>
    public PciConfigurationState Save()
    {
        lock (_lock)
            return _configuration.Save();
    }

    /// <inheritdoc/>
    public void Restore(PciConfigurationState state)
    {
        lock (_lock)
            _configuration.Restore(state);
    }
}
