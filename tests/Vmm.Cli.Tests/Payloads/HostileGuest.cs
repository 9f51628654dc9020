using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Tests.Payloads;

/// <summary>
/// A guest that does to every device and hole whatever comes to a fixed seed's mind: any size, any value, string instructions, accesses
/// that begin before a range or end after it. It avoids only what would end the machine, and powers off at last.
/// </summary>
internal static class HostileGuest
{
    private const ulong Scratch = 0x80_0000;

    // Around everything that a machine has, the in-kernel controllers included, and some places where nothing is.
    private static readonly (int First, int Last)[] s_ports =
    [
        (0x00, 0x0F), (0x1E, 0x23), (0x3E, 0x47), (0x5E, 0x66), (0x6E, 0x73), (0x7E, 0x82), (0x90, 0x93), (0x9E, 0xA3), (0xB0, 0xB3),
        (0xE7, 0xEF), (0x2F6, 0x300), (0x3F5, 0x402), (0x4CE, 0x4D3), (0x502, 0x508), (0x5FD, 0x60F), (0xCF5, 0xD02), (0xFFFC, 0xFFFF),
    ];

    private static readonly (ulong First, ulong Last)[] s_memory =
    [
        (0x3FF_FFF0, 0x400_0010), // the end of 64 MiB of RAM
        (0xBFFF_FFF0, 0xC000_0010), // the boot timer
        (0xC000_0FF0, 0xC000_2000), // virtio-mmio slots
        (0xCFFF_FFF0, 0xD000_0010),
        (0xDFFF_FFF0, 0xE000_2000), // ECAM
        (0xE00F_FFF0, 0xE010_0010),
        (0xEFFF_FFF0, 0xF000_0010),
        (0xFED0_0000, 0xFED0_0400),
        (0xFEFF_BFF0, 0xFEFF_C000), // up to KVM's own pages
        (0xFFC0_0000, 0xFFC0_0010),
        (0xFFFF_FF00, 0xFFFF_FF80),
    ];

    // Commands of the keyboard controller that do not pulse the reset line, nor say that the next byte drives it.
    private static readonly byte[] s_keyboardCommands = [0x00, 0x1F, 0x20, 0x3F, 0x60, 0x7F, 0xA1, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xC0, 0xC1, 0xD0, 0xD2, 0xD3, 0xD4, 0xE0, 0xEF];

    internal static byte[] Make(int seed, int accesses)
    {
        var random = new Random(seed);
        return GuestProgram.Elf(a =>
        {
            a.cld();
            for (int i = 0; i < accesses; i++)
            {
                switch (random.Next(8))
                {
                    case 0:
                        PortString(a, random);
                        break;
                    case < 5:
                        Port(a, random);
                        break;
                    case 5:
                        MemoryString(a, random);
                        break;
                    default:
                        Memory(a, random);
                        break;
                }
            }

            // The serial port as it was: without loopback and divisor latch.
            a.Out(0x3FC, 0);
            a.Out(0x3FB, 3);
            a.Print("still here\r\n");
            a.PowerOff();
        });
    }

    private static void Port(Assembler a, Random random)
    {
        (int first, int last) = s_ports[random.Next(s_ports.Length)];
        int port = random.Next(first, last + 1);
        int size = 1 << random.Next(3);
        a.mov(dx, (ushort)port);
        if (random.Next(2) == 0)
        {
            switch (size)
            {
                case 1:
                    a.@in(al, dx);
                    break;
                case 2:
                    a.@in(ax, dx);
                    break;
                default:
                    a.@in(eax, dx);
                    break;
            }

            return;
        }

        a.mov(eax, Harmless(random, port, size));
        switch (size)
        {
            case 1:
                a.@out(dx, al);
                break;
            case 2:
                a.@out(dx, ax);
                break;
            default:
                a.@out(dx, eax);
                break;
        }
    }

    private static void PortString(Assembler a, Random random)
    {
        (int first, int last) = s_ports[random.Next(s_ports.Length)];
        a.mov(dx, (ushort)random.Next(first, last + 1));
        a.mov(ecx, random.Next(0, 40));

        // Out of memory that is zero, which ends nothing anywhere.
        if (random.Next(2) == 0)
        {
            a.mov(rsi, Scratch + 0x10_0000);
            switch (random.Next(3))
            {
                case 0:
                    a.rep.outsb();
                    break;
                case 1:
                    a.rep.outsw();
                    break;
                default:
                    a.rep.outsd();
                    break;
            }

            return;
        }

        // Across a page's end, so that KVM takes it apart.
        a.mov(rdi, Scratch + 0xFF8);
        switch (random.Next(3))
        {
            case 0:
                a.rep.insb();
                break;
            case 1:
                a.rep.insw();
                break;
            default:
                a.rep.insd();
                break;
        }
    }

    private static void Memory(Assembler a, Random random)
    {
        a.mov(rdi, SomeAddress(random));
        a.mov(rax, (ulong)random.NextInt64());
        switch (random.Next(10))
        {
            case 0:
                a.mov(al, __byte_ptr[rdi]);
                break;
            case 1:
                a.mov(ax, __word_ptr[rdi]);
                break;
            case 2:
                a.mov(eax, __dword_ptr[rdi]);
                break;
            case 3:
                a.mov(rax, __qword_ptr[rdi]);
                break;
            case 4:
                a.mov(__byte_ptr[rdi], al);
                break;
            case 5:
                a.mov(__word_ptr[rdi], ax);
                break;
            case 6:
                a.mov(__dword_ptr[rdi], eax);
                break;
            case 7:
                a.mov(__qword_ptr[rdi], rax);
                break;
            case 8:
                a.or(__dword_ptr[rdi], eax);
                break;
            default:
                a.xchg(__dword_ptr[rdi], eax);
                break;
        }
    }

    private static void MemoryString(Assembler a, Random random)
    {
        a.mov(ecx, random.Next(0, 20));
        if (random.Next(2) == 0)
        {
            a.mov(rdi, SomeAddress(random));
            a.mov(eax, random.Next());
            a.rep.stosb();
        }
        else
        {
            a.mov(rsi, SomeAddress(random));
            a.mov(rdi, Scratch + 0xFF8);
            a.rep.movsd();
        }
    }

    private static ulong SomeAddress(Random random)
    {
        (ulong first, ulong last) = s_memory[random.Next(s_memory.Length)];
        return first + (ulong)random.NextInt64((long)(last - first));
    }

    private static uint Harmless(Random random, int port, int size)
    {
        uint value = (uint)random.NextInt64(1L << 32);
        for (int i = 0; i < size; i++)
        {
            int shift = 8 * i;
            switch (port + i)
            {
                case 0x64:
                    value = (value & ~(0xFFu << shift)) | ((uint)s_keyboardCommands[random.Next(s_keyboardCommands.Length)] << shift);
                    break;
                case 0x92:
                    value &= ~(1u << shift);
                    break;
                case 0x505:
                    // Neither a panic nor a shutdown; a crash kernel that was loaded is told as often as it likes.
                    value &= ~(5u << shift);
                    break;
                case 0x605:
                    value &= ~(0x20u << shift);
                    break;
                case 0xCF9:
                    value &= ~(0x04u << shift);
                    break;
            }
        }

        return value;
    }
}
