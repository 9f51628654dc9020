using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Devices.Pci;
using Vmm.Virtio.SharedMemory;
using static Vmm.Virtio.Transport.Pci.VirtioPciRegisters;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// Writes a device's identity, BARs and capabilities (VIRTIO 1.3 §4.1.4) into its configuration space. There is no PCI Express
/// capability: Linux wants none of a function on a root bus, and reads no extended configuration space where there is none.
/// </summary>
internal static class VirtioPciCapabilities
{
    /// <summary>Offset of cap.bar in a virtio capability.</summary>
    internal const int Bar = 4;

    /// <summary>Offset of cap.offset.</summary>
    internal const int Offset = 8;

    /// <summary>Offset of cap.length.</summary>
    internal const int Length = 12;

    /// <summary>Offset of pci_cfg_data in the PCI configuration access capability.</summary>
    internal const int Data = 16;

    /// <summary>Offset of the message control in the MSI-X capability.</summary>
    internal const int MessageControl = 2;

    internal const ushort MsixFunctionMask = 1 << 14;
    internal const ushort MsixEnable = 1 << 15;

    // Bytes that the configuration space counts itself: the capability's id and link.
    private const int Header = 2;
    private const int Size = 16;
    private const int MostSharedMemory = 3;

    /// <summary>Makes the configuration space.</summary>
    /// <returns>It, and the offsets of its MSI-X and PCI configuration access capabilities.</returns>
    /// <exception cref="VmmException">The device has more shared memory regions than there is room for.</exception>
    internal static (PciConfigurationSpace Space, int Msix, int ConfigurationAccess) Build(VirtioDevice device, VirtioPciLayout layout, int vectors)
    {
        if (device.SharedMemory.Count > MostSharedMemory)
        {
            throw VmmException.Configuration(
                $"Cannot put {device.Id} on the PCI bus: it has {device.SharedMemory.Count} shared memory regions, and there is room for {MostSharedMemory} in configuration space. Put it on the MMIO bus.");
        }
        var space = new PciConfigurationSpace(new PciIdentity(
            Vendor, (ushort)(FirstModernDevice + (int)device.Type), ClassOf(device.Type), Revision, Vendor, Subsystem, InterruptPin: 1));
        space.AddBar(VirtioPciLayout.RegistersBar, PciBarKind.Memory64, layout.RegistersSize);
        if (layout.SharedMemorySize != 0)
            space.AddBar(VirtioPciLayout.SharedMemoryBar, PciBarKind.Memory64, layout.SharedMemorySize, prefetchable: true);
        int msix = AddMsix(space, layout, vectors);
        Add(space, CommonConfiguration, VirtioPciLayout.Common, Common.Length);
        Add(space, IsrConfiguration, VirtioPciLayout.Isr, 1);
        if (device.ConfigurationLength != 0)
            Add(space, DeviceConfiguration, VirtioPciLayout.DeviceConfiguration, device.ConfigurationLength);
        AddNotify(space, layout);
        int access = AddConfigurationAccess(space);
        for (int i = 0; i < layout.SharedMemory.Length; i++)
            AddSharedMemory(space, device.SharedMemory[i], layout.SharedMemory[i]);
        return (space, msix, access);
    }

    private static int AddMsix(PciConfigurationSpace space, VirtioPciLayout layout, int vectors)
    {
        Span<byte> body = stackalloc byte[10];
        BinaryPrimitives.WriteUInt16LittleEndian(body, (ushort)(vectors - 1));
        BinaryPrimitives.WriteUInt32LittleEndian(body[2..], (uint)(layout.MsixTable | VirtioPciLayout.RegistersBar));
        BinaryPrimitives.WriteUInt32LittleEndian(body[6..], (uint)(layout.MsixPending | VirtioPciLayout.RegistersBar));
        return space.AddCapability(MsixCapability, body, [0, (MsixEnable | MsixFunctionMask) >> 8]);
    }

    private static void Add(PciConfigurationSpace space, byte type, int offset, int length)
    {
        Span<byte> capability = stackalloc byte[Size];
        Fill(capability, type, VirtioPciLayout.RegistersBar, 0, (uint)offset, (uint)length);
        space.AddCapability(VendorCapability, capability[Header..]);
    }

    private static void AddNotify(PciConfigurationSpace space, VirtioPciLayout layout)
    {
        Span<byte> capability = stackalloc byte[Size + 4];
        Fill(capability, NotifyConfiguration, VirtioPciLayout.RegistersBar, 0, VirtioPciLayout.Notify, (uint)layout.NotifyLength);
        BinaryPrimitives.WriteUInt32LittleEndian(capability[Size..], NotifyMultiplier);
        space.AddCapability(VendorCapability, capability[Header..]);
    }

    /// <summary>A window through which a driver that cannot map BARs reaches them (§4.1.4.9): it writes bar, offset and length.</summary>
    private static int AddConfigurationAccess(PciConfigurationSpace space)
    {
        Span<byte> capability = stackalloc byte[Data + 4];
        Span<byte> writable = stackalloc byte[Data + 4];
        Fill(capability, PciConfiguration, 0, 0, 0, 0);
        writable[Bar] = 0xFF;
        writable[Offset..].Fill(0xFF);
        return space.AddCapability(VendorCapability, capability[Header..], writable[Header..]);
    }

    /// <summary>A struct virtio_pci_cap64 (§4.1.4.7).</summary>
    private static void AddSharedMemory(PciConfigurationSpace space, SharedMemoryRegion region, ulong offset)
    {
        Span<byte> capability = stackalloc byte[Size + 8];
        Fill(capability, SharedMemoryConfiguration, VirtioPciLayout.SharedMemoryBar, region.Id, (uint)offset, (uint)region.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(capability[Size..], (uint)(offset >> 32));
        BinaryPrimitives.WriteUInt32LittleEndian(capability[(Size + 4)..], (uint)(region.Length >> 32));
        space.AddCapability(VendorCapability, capability[Header..]);
    }

    private static void Fill(Span<byte> capability, byte type, byte bar, byte id, uint offset, uint length)
    {
        capability[2] = (byte)capability.Length;
        capability[3] = type;
        capability[Bar] = bar;
        capability[5] = id;
        BinaryPrimitives.WriteUInt32LittleEndian(capability[Offset..], offset);
        BinaryPrimitives.WriteUInt32LittleEndian(capability[Length..], length);
    }
}
