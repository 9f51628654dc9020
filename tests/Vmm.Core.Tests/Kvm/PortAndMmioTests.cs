using Iced.Intel;
using Vmm.Core.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Core.Tests.Kvm;

/// <summary>What a guest's port and memory accesses look like to a device.</summary>
[Collection(nameof(KvmCollection))]
public sealed class PortAndMmioTests
{
    private const ushort Port = 0x500;
    private const ulong Mmio = 0xC000_0000;
    private const ulong Buffer = 0x11_0000;

    [SkippableFact]
    public void Port_writes_of_1_2_and_4_bytes()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new AccessRecorder();
        machine.Ports.Add(Port, 16, device, "recorder");
        machine.Load(Payload.Long(a =>
        {
            a.mov(eax, 0x8899AABB);
            a.mov(dx, Port);
            a.@out(dx, al);
            a.mov(dx, Port + 3);
            a.@out(dx, ax);
            a.mov(dx, Port + 12);
            a.@out(dx, eax);
            // Past the end of the range, and where nobody is.
            a.mov(dx, Port + 14);
            a.@out(dx, eax);
            a.Done();
        })).Run();
        Assert.Equal([(true, 0UL, 1, 0xBBUL), (true, 3UL, 2, 0xAABBUL), (true, 12UL, 4, 0x8899AABBUL)], device.All);
        Assert.Equal(1, machine.Ports.Unclaimed);
    }

    [SkippableFact]
    public void Port_reads_of_1_2_and_4_bytes()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new AccessRecorder();
        machine.Ports.Add(Port, 16, device, "recorder");
        machine.Load(Payload.Long(a =>
        {
            a.mov(rbx, Buffer);
            a.mov(rax, 0x1122334455667788);
            a.mov(dx, Port + 1);
            a.@in(al, dx);
            a.mov(__qword_ptr[rbx], rax);
            a.mov(rax, 0x1122334455667788);
            a.mov(dx, Port + 2);
            a.@in(ax, dx);
            a.mov(__qword_ptr[rbx + 8], rax);
            a.mov(rax, 0x1122334455667788);
            a.mov(dx, Port + 8);
            a.@in(eax, dx);
            a.mov(__qword_ptr[rbx + 16], rax);
            a.mov(dx, Port + 16);
            a.@in(eax, dx);
            a.mov(__qword_ptr[rbx + 24], rax);
            a.Done();
        })).Run();
        Assert.Equal([0x1122334455667700 | device.Expect(1, 1), 0x1122334455660000 | device.Expect(2, 2), device.Expect(8, 4), 0xFFFF_FFFF], Quads(machine, 4));
    }

    [SkippableFact]
    public void String_writes_and_reads_of_ports()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        byte next = 0;
        var device = new AccessRecorder { Answer = _ => next++ };
        machine.Ports.Add(Port, 4, device, "recorder");
        byte[] text = [.. Enumerable.Range(0, 200).Select(i => (byte)(i ^ 0x5A))];
        machine.Memory.Write(Buffer, text);
        machine.Load(Payload.Long(a =>
        {
            a.cld();
            a.mov(dx, Port);
            a.mov(rsi, Buffer);
            a.mov(ecx, 200);
            a.rep.outsb();
            a.mov(rsi, Buffer);
            a.mov(ecx, 100);
            a.rep.outsw();
            a.mov(rsi, Buffer);
            a.mov(ecx, 50);
            a.rep.outsd();
            a.mov(rdi, Buffer + 0x1000);
            a.mov(ecx, 250);
            a.rep.insb();
            a.Done();
        })).Run();
        byte[] written = [.. device.All.Where(x => x.Write).SelectMany(x => BitConverter.GetBytes(x.Value)[..x.Size])];
        Assert.Equal([.. text, .. text, .. text], written);
        Assert.Equal(200 + 100 + 50, device.All.Count(x => x.Write));
        byte[] read = new byte[251];
        Assert.True(machine.Memory.TryRead(Buffer + 0x1000, read));
        Assert.Equal(Enumerable.Range(0, 250).Select(i => (byte)i), read[..250]);
        Assert.Equal(0, read[250]);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void Memory_writes_and_reads_of_1_to_8_bytes(bool user)
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new AccessRecorder();
        machine.Mmio.Add(Mmio, 0x2000, device, "recorder");
        byte[] code = Payload.Long(a =>
        {
            a.mov(rbx, Mmio);
            a.mov(rdi, Buffer);
            a.mov(rax, 0x1122334455667788);
            a.mov(__byte_ptr[rbx + 1], al);
            a.mov(__word_ptr[rbx + 3], ax);
            a.mov(__dword_ptr[rbx + 5], eax);
            a.mov(__qword_ptr[rbx + 9], rax);
            a.mov(rcx, rax);
            a.mov(cl, __byte_ptr[rbx + 1]);
            a.mov(__qword_ptr[rdi], rcx);
            a.mov(cx, __word_ptr[rbx + 2]);
            a.mov(__qword_ptr[rdi + 8], rcx);
            a.mov(ecx, __dword_ptr[rbx + 3]);
            a.mov(__qword_ptr[rdi + 16], rcx);
            a.mov(rcx, __qword_ptr[rbx + 5]);
            a.mov(__qword_ptr[rdi + 24], rcx);
            a.movzx(ecx, __byte_ptr[rbx + 7]);
            a.mov(__qword_ptr[rdi + 32], rcx);
            a.movsxd(rcx, __dword_ptr[rbx + 8]);
            a.mov(__qword_ptr[rdi + 40], rcx);
            a.DoneByMemory();
        });
        (user ? machine.LoadUser(code) : machine.Load(code)).Run();
        const ulong value = 0x1122334455667788;
        Assert.Equal([(true, 1UL, 1, value & 0xFF), (true, 3UL, 2, value & 0xFFFF), (true, 5UL, 4, value & 0xFFFF_FFFF), (true, 9UL, 8, value)], device.All.Where(x => x.Write));
        Assert.Equal([(1UL, 1), (2UL, 2), (3UL, 4), (5UL, 8), (7UL, 1), (8UL, 4)], device.All.Where(x => !x.Write).Select(x => (x.Offset, x.Size)));
        ulong byteRead = (value & ~0xFFUL) | device.Expect(1, 1);
        Assert.Equal(
            [byteRead, (byteRead & ~0xFFFFUL) | device.Expect(2, 2), device.Expect(3, 4), device.Expect(5, 8), device.Expect(7, 1), (ulong)(int)device.Expect(8, 4)],
            Quads(machine, 6));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void An_access_across_a_page_comes_in_two_parts_of_odd_sizes(bool user)
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new AccessRecorder();
        machine.Mmio.Add(Mmio, 0x2000, device, "recorder");
        byte[] code = Payload.Long(a =>
        {
            a.mov(rbx, Mmio + 0xFFD);
            a.mov(rdi, Buffer);
            a.mov(rax, 0x1122334455667788);
            a.mov(__qword_ptr[rbx], rax);
            a.mov(rcx, __qword_ptr[rbx + 1]);
            a.mov(__qword_ptr[rdi], rcx);
            a.DoneByMemory();
        });
        (user ? machine.LoadUser(code) : machine.Load(code)).Run();
        Assert.Equal([(true, 0xFFDUL, 3, 0x667788UL), (true, 0x1000UL, 5, 0x1122334455UL)], device.All.Where(x => x.Write));
        Assert.Equal([(0xFFEUL, 2), (0x1000UL, 6)], device.All.Where(x => !x.Write).Select(x => (x.Offset, x.Size)));
        Assert.Equal([device.Expect(0xFFE, 8)], Quads(machine, 1));
    }

    private static ulong[] Quads(TestMachine machine, int count)
    {
        ulong[] values = new ulong[count];
        for (int i = 0; i < count; i++)
            Assert.True(machine.Memory.TryRead(Buffer + ((ulong)i * 8), out values[i]));
        return values;
    }
}
