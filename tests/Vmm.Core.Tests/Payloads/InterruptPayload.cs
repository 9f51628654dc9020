using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Core.Tests.Payloads;

/// <summary>What payloads do with the interrupt controllers (Intel SDM vol. 3A §11; 82093AA for the IOAPIC).</summary>
internal static class InterruptPayload
{
    public const ulong LocalApic = 0xFEE0_0000;
    public const ulong IoApic = 0xFEC0_0000;

    private const int SpuriousVector = 0xF0;
    private const int EndOfInterrupt = 0xB0;
    private const uint LevelTriggered = 1 << 15;

    /// <summary>Software-enables the local APIC, and masks the PICs, which would answer the same lines with vectors of their own.</summary>
    public static void EnableLocalApic(this Assembler a)
    {
        a.mov(al, 0xFF);
        a.@out(0x21, al);
        a.@out(0xA1, al);
        a.mov(rbx, LocalApic);
        a.mov(__dword_ptr[rbx + SpuriousVector], 0x1FF);
    }

    /// <summary>Routes an IOAPIC pin to a vector of APIC 0.</summary>
    public static void RoutePin(this Assembler a, int pin, byte vector, bool level = false)
    {
        a.mov(rbx, IoApic);
        a.mov(__dword_ptr[rbx], 0x11 + (2 * pin));
        a.mov(__dword_ptr[rbx + 0x10], 0);
        a.mov(__dword_ptr[rbx], 0x10 + (2 * pin));
        a.mov(__dword_ptr[rbx + 0x10], vector | (level ? LevelTriggered : 0));
    }

    public static void Eoi(this Assembler a)
    {
        a.mov(rbx, LocalApic);
        a.mov(__dword_ptr[rbx + EndOfInterrupt], 0);
    }

    /// <summary>Says that it is ready (1 in the log), then waits for interrupts.</summary>
    public static void WaitForInterrupts(this Assembler a)
    {
        a.Log(1);
        Label again = a.CreateLabel();
        a.Label(ref again);
        a.sti();
        a.hlt();
        a.jmp(again);
    }

    /// <summary>
    /// A handler: logs a byte, ends the interrupt, and goes back to waiting on a fresh stack. (Not by IRET, which KVM's emulator
    /// does not know in 64-bit mode.)
    /// </summary>
    public static byte[] Handler(byte log, ulong address) => Payload.Long(
        a =>
        {
            a.Log(log);
            a.Eoi();
            a.mov(rsp, 0x8FF0);
            Label again = a.CreateLabel();
            a.Label(ref again);
            a.sti();
            a.hlt();
            a.jmp(again);
        },
        address);
}
