using System.Runtime.InteropServices;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;

namespace Vmm.Core.Cpu;

/// <summary>The model-specific registers and local APIC pins that firmware would have set.</summary>
internal static class ModelSpecificRegisters
{
    private const uint Ia32MiscEnable = 0x1A0;
    private const uint Ia32MtrrDefType = 0x2FF;

    private const ulong MiscEnableFastString = 1;
    private const ulong MtrrEnableWriteBack = (1 << 11) | 6;

    private const int LapicLvt0 = 0x350;
    private const int LapicLvt1 = 0x360;
    private const uint DeliveryExtInt = 0x700;
    private const uint DeliveryNmi = 0x400;

    /// <summary>Sets them; what a KVM does not know is left out one by one, since none is needed to run.</summary>
    internal static void Apply(KvmVcpu vcpu)
    {
        Span<kvm_msr_entry> entries =
        [
            new kvm_msr_entry { index = Ia32MiscEnable, data = MiscEnableFastString },
            new kvm_msr_entry { index = Ia32MtrrDefType, data = MtrrEnableWriteBack },
        ];
        while (!entries.IsEmpty)
        {
            int taken = vcpu.SetMsrs(entries);
            entries = entries[Math.Min(taken + 1, entries.Length)..];
        }
    }

    /// <summary>LINT0 takes the PIC's interrupts and LINT1 NMIs, as after a firmware (Intel SDM vol. 3A §11.5.1).</summary>
    internal static void SetLocalApicPins(KvmVcpu vcpu)
    {
        vcpu.GetLapic(out kvm_lapic_state lapic);
        Span<byte> registers = MemoryMarshal.AsBytes(new Span<kvm_lapic_state>(ref lapic));
        SetDeliveryMode(registers[LapicLvt0..], DeliveryExtInt);
        SetDeliveryMode(registers[LapicLvt1..], DeliveryNmi);
        vcpu.SetLapic(lapic);
    }

    private static void SetDeliveryMode(Span<byte> register, uint mode)
    {
        uint value = MemoryMarshal.Read<uint>(register);
        MemoryMarshal.Write(register, (value & ~0x10700u) | mode);
    }
}
