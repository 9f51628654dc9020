using System.Numerics;
using Vmm.Core;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// Where a device's structures are in its two BARs: registers in BAR 0, each kind on pages of its own (§4.1.4: a driver may map them one
/// by one), and shared memory regions in BAR 2.
/// </summary>
internal sealed class VirtioPciLayout
{
    internal const int RegistersBar = 0;
    internal const int SharedMemoryBar = 2;

    /// <summary>Common configuration.</summary>
    internal const int Common = 0;

    /// <summary>ISR status: one byte.</summary>
    internal const int Isr = 0x1000;

    /// <summary>The device's configuration space.</summary>
    internal const int DeviceConfiguration = 0x2000;

    /// <summary>The most that a device's configuration space may have.</summary>
    internal const int DeviceConfigurationSize = 0x1000;

    /// <summary>Doorbells.</summary>
    internal const int Notify = 0x3000;

    // Large enough for a huge page of the host behind each, where the region is.
    private const ulong HugePage = 2UL << 20;

    internal VirtioPciLayout(VirtioDevice device, int vectors)
    {
        if (device.ConfigurationLength > DeviceConfigurationSize)
            throw new ArgumentException($"{device.Id} has {device.ConfigurationLength} bytes of configuration.", nameof(device));
        NotifyLength = Math.Max(1, device.QueueSizes.Count) * VirtioPciRegisters.NotifyMultiplier;
        MsixTable = Page(Notify + NotifyLength);
        MsixTableLength = vectors * Pci.MsixTable.EntrySize;
        MsixPending = Page(MsixTable + MsixTableLength);
        MsixPendingLength = (vectors + 63) / 64 * sizeof(ulong);
        RegistersSize = BitOperations.RoundUpToPowerOf2((uint)Page(MsixPending + MsixPendingLength));

        SharedMemory = new ulong[device.SharedMemory.Count];
        ulong end = 0;
        for (int i = 0; i < SharedMemory.Length; i++)
        {
            ulong length = device.SharedMemory[i].Length;
            ulong alignment = length >= HugePage ? HugePage : MemoryLayout.PageSize;
            SharedMemory[i] = (end + (alignment - 1)) & ~(alignment - 1);
            end = SharedMemory[i] + length;
            if (length > MemoryLayout.MaximumPci64Size || end > MemoryLayout.MaximumPci64Size)
                throw VmmException.Configuration($"Cannot put {device.Id} on the PCI bus: its shared memory has more than {MemoryLayout.MaximumPci64Size >> 30} GiB. Ask for less.");
        }
        SharedMemorySize = BitOperations.RoundUpToPowerOf2(end);
    }

    internal int NotifyLength { get; }

    /// <summary>MSI-X table.</summary>
    internal int MsixTable { get; }

    internal int MsixTableLength { get; }

    /// <summary>MSI-X pending bits.</summary>
    internal int MsixPending { get; }

    internal int MsixPendingLength { get; }

    /// <summary>Bytes of BAR 0.</summary>
    internal ulong RegistersSize { get; }

    /// <summary>Offset of each shared memory region in BAR 2.</summary>
    internal ulong[] SharedMemory { get; }

    /// <summary>Bytes of BAR 2; 0 for none.</summary>
    internal ulong SharedMemorySize { get; }

    private static int Page(int offset) => (offset + 0xFFF) & ~0xFFF;
}
