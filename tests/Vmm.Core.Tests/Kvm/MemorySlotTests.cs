using Iced.Intel;
using Vmm.Core.Bus;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Core.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Tests.Kvm;

/// <summary>Host memory that is shown to a guest, moved and taken back while it runs.</summary>
[Collection(nameof(KvmCollection))]
public sealed unsafe class MemorySlotTests
{
    private const ulong First = 0x4000_0000;
    private const ulong Second = 0x4800_0000;
    private const ulong Length = 0x20_0000;
    private const ulong Step = 0xC000_0000;

    [SkippableFact]
    public void A_guest_finds_memory_where_it_was_moved_to_and_nothing_where_it_was()
    {
        HostKvm.Needed();
        using HostMapping memory = HostMapping.TryMap((nuint)Length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)!;
        using var machine = new TestMachine();
        var slots = new KvmMemorySlots(machine.Vm);
        // Number 0 is the test machine's RAM, which it mapped by itself.
        int ram = slots.Map(0, TestMachine.RamSize, machine.Memory.Regions[0].HostAddress);
        Assert.Equal(0, ram);
        Assert.True(slots.TryMap(First, Length, (nint)memory.Address, false, out int slot));
        *(ulong*)(memory.Address + 0x1000) = 0x1111;
        int steps = 0;
        var moved = new StepDevice(() =>
        {
            switch (steps++)
            {
                case 0:
                    Assert.Equal(0x2222UL, *(ulong*)(memory.Address + 0x1000));
                    Assert.True(slots.TryMove(slot, Second));
                    break;
                case 1:
                    slots.Unmap(slot);
                    break;
            }
        });
        machine.Mmio.Add(Step, 8, moved, "step");
        machine.Load(Payload.Long(a =>
        {
            a.mov(rbx, First + 0x1000);
            a.mov(rcx, Second + 0x1000);
            a.mov(rdi, Step);
            a.mov(rsi, 0x11_0000UL);
            a.mov(rax, __qword_ptr[rbx]);
            a.mov(__qword_ptr[rsi], rax);
            a.mov(rax, 0x2222);
            a.mov(__qword_ptr[rbx], rax);
            a.mov(__dword_ptr[rdi], eax);
            a.mov(rax, __qword_ptr[rbx]);
            a.mov(__qword_ptr[rsi + 8], rax);
            a.mov(rax, __qword_ptr[rcx]);
            a.mov(__qword_ptr[rsi + 16], rax);
            a.mov(__dword_ptr[rdi], eax);
            a.mov(rax, __qword_ptr[rcx]);
            a.mov(__qword_ptr[rsi + 24], rax);
            a.Done();
        })).Run();
        ulong[] seen = new ulong[4];
        for (int i = 0; i < seen.Length; i++)
            Assert.True(machine.Memory.TryRead(0x11_0000 + ((ulong)i * 8), out seen[i]));
        Assert.Equal([0x1111UL, ulong.MaxValue, 0x2222UL, ulong.MaxValue], seen);
        Assert.Equal([(0, new AddressRange(0, TestMachine.RamSize))], slots.Slots);
    }

    [SkippableFact]
    public void A_guests_writes_to_read_only_memory_go_to_the_bus()
    {
        HostKvm.Needed();
        using HostMapping memory = HostMapping.TryMap((nuint)Length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)!;
        using var machine = new TestMachine();
        var slots = new KvmMemorySlots(machine.Vm);
        slots.Map(0, TestMachine.RamSize, machine.Memory.Regions[0].HostAddress);
        Skip.If(machine.Vm.CheckExtension(KVM_CAP_READONLY_MEM) == 0, "This KVM has no read-only memory.");
        *(ulong*)memory.Address = 0x1111;
        Assert.True(slots.TryMap(First, Length, (nint)memory.Address, true, out _));
        machine.Load(Payload.Long(a =>
        {
            a.mov(rbx, First);
            a.mov(rax, 0x2222);
            a.mov(__qword_ptr[rbx], rax);
            a.mov(rax, __qword_ptr[rbx]);
            a.mov(rsi, 0x11_0000UL);
            a.mov(__qword_ptr[rsi], rax);
            a.Done();
        })).Run();
        Assert.True(machine.Memory.TryRead(0x11_0000, out ulong seen));
        Assert.Equal(0x1111UL, seen);
        Assert.Equal(0x1111UL, *(ulong*)memory.Address);
        Assert.Equal(1, machine.Mmio.Unclaimed);
    }

    [SkippableFact]
    public void Places_that_are_taken_are_refused_and_numbers_are_used_again()
    {
        HostKvm.Needed();
        using HostMapping memory = HostMapping.TryMap((nuint)(4 * Length), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)!;
        var host = (nint)memory.Address;
        using KvmSystem system = KvmSystem.Open();
        KvmVm vm = system.CreateVm();
        var slots = new KvmMemorySlots(vm);
        Assert.Equal(0, slots.Map(0, Length, host));
        Assert.False(slots.TryMap(Length - 0x1000, Length, host, false, out _));
        Assert.Equal(VmmErrorKind.Host, Assert.Throws<VmmException>(() => slots.Map(0x1000, 0x1000, host)).Kind);
        Assert.False(slots.TryMap(First + 1, Length, host, false, out _));
        Assert.False(slots.TryMap(1UL << 63, Length, host, false, out _));
        Assert.True(slots.TryMap(First, Length, host, false, out int first));
        Assert.True(slots.TryMap(Second, Length, host, false, out int second));
        Assert.Equal((1, 2), (first, second));
        Assert.False(slots.TryMove(first, Second));
        Assert.False(slots.TryMove(first, 0x1000));
        Assert.True(slots.TryMove(first, First));
        Assert.Equal([0, First, Second], slots.Slots.Select(s => s.Range.Start));
        slots.Unmap(first);
        slots.Unmap(first);
        Assert.False(slots.TryMove(first, First));
        Assert.True(slots.TryMap(First, Length, host, false, out int again));
        Assert.Equal(first, again);
        vm.Dispose();
        // The machine is gone: nothing of it is touched.
        Assert.False(slots.TryMove(again, First + Length));
        slots.Unmap(second);
    }

    [SkippableFact]
    public void Numbers_that_became_free_in_any_order_are_used_before_new_ones()
    {
        HostKvm.Needed();
        using HostMapping memory = HostMapping.TryMap((nuint)Length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)!;
        using KvmSystem system = KvmSystem.Open();
        using KvmVm vm = system.CreateVm();
        var slots = new KvmMemorySlots(vm);
        int[] numbers = [.. Enumerable.Range(0, 40).Select(i => Map(i))];
        Assert.Equal(Enumerable.Range(0, 40), numbers);
        foreach (int i in new[] { 7, 39, 0, 12, 13 })
            slots.Unmap(numbers[i]);
        // One that is refused takes none.
        Assert.False(slots.TryMap(First + 0x1000, 0x1000, (nint)memory.Address, false, out _));
        Assert.Equal([0, 7, 12, 13, 39, 40], Enumerable.Range(40, 6).Select(i => Map(i)).Order());
        Assert.Equal(41, slots.Slots.Count);

        int Map(int i)
        {
            Assert.True(slots.TryMap(First + ((ulong)i * 0x1000), 0x1000, (nint)memory.Address + (i * 0x1000), false, out int slot));
            return slot;
        }
    }

    [SkippableFact]
    public void Kvm_forgets_only_the_pages_of_the_slot_that_changes_where_it_can()
    {
        HostKvm.Needed();
        using KvmSystem system = KvmSystem.Open();
        using KvmVm vm = system.CreateVm();
        bool offered = (vm.CheckExtension(KVM_CAP_DISABLE_QUIRKS2) & KVM_X86_QUIRK_SLOT_ZAP_ALL) != 0;
        Assert.Equal(offered, vm.KeepPagesOfOtherSlots());
    }

    private sealed class StepDevice(Action step) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

        public void Write(ulong offset, ReadOnlySpan<byte> data) => step();
    }
}
