using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Tests.Payloads;

/// <summary>Where a virtio device's registers are, and the accesses that a guest program makes to them (VIRTIO 1.3 §4.1.4, §4.2.2).</summary>
/// <param name="Address">Of the registers.</param>
/// <param name="IsPci">Laid out as this program's virtio-pci devices have them, in a BAR that was put here; else virtio-mmio.</param>
internal readonly record struct GuestVirtio(ulong Address, bool IsPci)
{
    /// <summary>VIRTIO_F_VERSION_1, in the upper half of the features.</summary>
    internal const uint Version1 = 1;

    internal const uint Acknowledge = 1, Driver = 2, DriverOk = 4, FeaturesOk = 8;

    /// <summary>The configuration space.</summary>
    internal ulong Configuration => Address + (IsPci ? 0x2000u : 0x100u);

    /// <summary>How far registers and configuration space reach.</summary>
    internal int Length => IsPci ? 0x4000 : 0x1000;

    private ulong FeatureRegisters => Address + (IsPci ? 0u : 0x10u);

    private ulong DriverFeatureRegisters => Address + (IsPci ? 8u : 0x20u);

    internal ulong StatusRegister => Address + (IsPci ? 0x14u : 0x70u);

    /// <summary>Puts the BAR of a PCI device into the window for 32-bit BARs, and switches memory and bus mastering on.</summary>
    internal void Enable(Assembler a, int device)
    {
        if (!IsPci)
            return;
        ulong configuration = 0xE000_0000UL + ((ulong)device << 15);
        Write32(a, configuration + 0x10, (uint)Address);
        Write32(a, configuration + 0x14, 0);
        Write32(a, configuration + 4, 6);
    }

    internal void Status(Assembler a, uint value)
    {
        if (IsPci)
            Write8(a, StatusRegister, (byte)value);
        else
            Write32(a, StatusRegister, value);
    }

    /// <summary>Accepts what is offered and in the mask.</summary>
    internal void AcceptFeatures(Assembler a, ulong mask)
    {
        for (uint half = 0; half < 2; half++)
        {
            // In both layouts one selects and the other is the window, but the other way around.
            (ulong offered, ulong offeredSelect) = IsPci ? (FeatureRegisters + 4, FeatureRegisters) : (FeatureRegisters, FeatureRegisters + 4);
            (ulong accepted, ulong acceptedSelect) = IsPci ? (DriverFeatureRegisters + 4, DriverFeatureRegisters) : (DriverFeatureRegisters, DriverFeatureRegisters + 4);
            Write32(a, offeredSelect, half);
            Write32(a, acceptedSelect, half);
            a.mov(rdi, offered);
            a.mov(eax, __dword_ptr[rdi]);
            a.and(eax, (uint)(mask >> (int)(32 * half)));
            a.mov(rdi, accepted);
            a.mov(__dword_ptr[rdi], eax);
        }
    }

    /// <summary>Selects a queue and sets it up; it need not make sense.</summary>
    internal void Queue(Assembler a, uint queue, uint size, ulong descriptors, ulong driver, ulong device, bool enable)
    {
        if (IsPci)
        {
            Write16(a, Address + 0x16, (ushort)queue);
            Write16(a, Address + 0x18, (ushort)size);
            Write64(a, Address + 0x20, descriptors);
            Write64(a, Address + 0x28, driver);
            Write64(a, Address + 0x30, device);
            if (enable)
                Write16(a, Address + 0x1C, 1);
            return;
        }
        Write32(a, Address + 0x30, queue);
        Write32(a, Address + 0x38, size);
        Write64(a, Address + 0x80, descriptors);
        Write64(a, Address + 0x90, driver);
        Write64(a, Address + 0xA0, device);
        if (enable)
            Write32(a, Address + 0x44, 1);
    }

    /// <summary>Resets the selected queue, whether that was agreed upon or not.</summary>
    internal void ResetQueue(Assembler a)
    {
        if (IsPci)
            Write16(a, Address + 0x3A, 1);
        else
            Write32(a, Address + 0xC0, 1);
    }

    internal void Notify(Assembler a, uint queue)
    {
        if (IsPci)
            Write16(a, Address + 0x3000 + (4UL * (queue & 0x3FF)), (ushort)queue);
        else
            Write32(a, Address + 0x50, queue);
    }

    internal static void Write8(Assembler a, ulong address, byte value)
    {
        a.mov(rdi, address);
        a.mov(__byte_ptr[rdi], value);
    }

    internal static void Write16(Assembler a, ulong address, ushort value)
    {
        a.mov(rdi, address);
        a.mov(__word_ptr[rdi], value);
    }

    internal static void Write32(Assembler a, ulong address, uint value)
    {
        a.mov(rdi, address);
        a.mov(__dword_ptr[rdi], value);
    }

    /// <summary>In two halves, as 64-bit registers are written.</summary>
    internal static void Write64(Assembler a, ulong address, ulong value)
    {
        Write32(a, address, (uint)value);
        Write32(a, address + 4, (uint)(value >> 32));
    }
}
