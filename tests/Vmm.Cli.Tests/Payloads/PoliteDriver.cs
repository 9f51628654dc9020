using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Tests.Payloads;

/// <summary>
/// A guest with a correct driver of one virtio device of any kind, and somebody at its console: it brings the device up with one request in its
/// first queue, resets it and begins anew whenever it needs that, and answers each byte that is typed with the next one.
/// </summary>
internal static class PoliteDriver
{
    /// <summary>Guest memory that it is made for.</summary>
    internal const string Memory = "64M";

    private const ushort SerialData = 0x3F8, SerialLineStatus = 0x3FD;
    private const byte NeedsReset = 0x40;
    private const ulong Descriptors = 0x200_0000, Available = 0x200_1000, Used = 0x200_2000, Data = 0x200_3000;
    private const int QueueSize = 64;

    /// <summary>A kernel file. The device is the first of its bus.</summary>
    internal static byte[] Make(bool pci) => GuestProgram.Elf(a =>
    {
        GuestVirtio device = pci ? new GuestVirtio(0xD000_0000, true) : new GuestVirtio(0xC000_1000, false);
        Label begin = a.CreateLabel(), untilReset = a.CreateLabel(), live = a.CreateLabel(), wait = a.CreateLabel();
        device.Enable(a, 1);
        a.Label(ref begin);
        device.Status(a, 0);
        a.Label(ref untilReset);
        ReadStatus(a, device);
        a.test(al, al);
        a.jnz(untilReset);
        Empty(a, Descriptors, 0x4000);
        Request(a);
        device.Status(a, GuestVirtio.Acknowledge);
        device.Status(a, GuestVirtio.Acknowledge | GuestVirtio.Driver);
        device.AcceptFeatures(a, (ulong)GuestVirtio.Version1 << 32);
        device.Status(a, GuestVirtio.Acknowledge | GuestVirtio.Driver | GuestVirtio.FeaturesOk);
        device.Queue(a, 0, QueueSize, Descriptors, Available, Used, enable: true);
        device.Status(a, GuestVirtio.Acknowledge | GuestVirtio.Driver | GuestVirtio.FeaturesOk | GuestVirtio.DriverOk);
        device.Notify(a, 0);
        a.Label(ref live);
        ReadStatus(a, device);
        a.test(al, NeedsReset);
        a.jnz(begin);
        a.mov(ecx, 200);
        a.Label(ref wait);
        a.pause();
        a.dec(ecx);
        a.jnz(wait);
        a.mov(dx, SerialLineStatus);
        a.@in(al, dx);
        a.test(al, 1);
        a.jz(live);
        a.mov(dx, SerialData);
        a.@in(al, dx);
        a.inc(al);
        a.@out(dx, al);
        a.jmp(live);
    });

    private static void ReadStatus(Assembler a, GuestVirtio device)
    {
        a.mov(rdi, device.StatusRegister);
        if (device.IsPci)
            a.mov(al, __byte_ptr[rdi]);
        else
            a.mov(eax, __dword_ptr[rdi]);
    }

    private static void Empty(Assembler a, ulong address, int length)
    {
        a.cld();
        a.mov(rdi, address);
        a.xor(eax, eax);
        a.mov(ecx, length / 8);
        a.rep.stosq();
    }

    /// <summary>Eight bytes to read and eight to write, available.</summary>
    private static void Request(Assembler a)
    {
        GuestVirtio.Write64(a, Data, 0x0706_0504_0302_0100);
        GuestVirtio.Write64(a, Descriptors, Data);
        GuestVirtio.Write64(a, Descriptors + 8, 8 | (1UL << 32) | (1UL << 48));
        GuestVirtio.Write64(a, Descriptors + 16, Data + 0x100);
        GuestVirtio.Write64(a, Descriptors + 24, 8 | (2UL << 32));
        GuestVirtio.Write32(a, Available, 1 << 16);
    }
}
