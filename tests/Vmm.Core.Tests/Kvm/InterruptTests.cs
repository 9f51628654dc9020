using Iced.Intel;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Tests.Kvm;

/// <summary>Interrupts in, by every way, and doorbells out, without an exit to user space.</summary>
[Collection(nameof(KvmCollection))]
public sealed unsafe class InterruptTests
{
    private const int Pin = 5;
    private const byte Vector = 0x45;
    private const ulong Doorbell = 0xC000_0000;
    private const ushort DoorbellPort = 0x600;

    [SkippableFact]
    public void An_edge_on_a_line_wakes_a_halted_vcpu()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(a => a.RoutePin(Pin, Vector));
        var line = new KvmIrqLine(machine.Vm, Pin);
        line.Set(true);
        Assert.Equal([1, Vector], machine.Log.WaitFor(2));
        line.Set(false);
        line.Set(true);
        Assert.Equal([1, Vector, Vector], machine.Log.WaitFor(3));
    }

    [SkippableFact]
    public void An_eventfd_raises_an_interrupt()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(a => a.RoutePin(Pin, Vector));
        using FileDescriptor eventFd = EventFd();
        machine.Vm.AddIrqfd(eventFd.Number, Pin);
        Signal(eventFd);
        Assert.Equal([1, Vector], machine.Log.WaitFor(2));
        machine.Vm.RemoveIrqfd(eventFd.Number, Pin);
        VmmException error = Assert.Throws<VmmException>(() => machine.Vm.AddIrqfd(-1, Pin));
        Assert.StartsWith("Cannot connect an eventfd to interrupt 5: ", error.Message, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void A_level_interrupt_tells_its_end_on_a_second_eventfd()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(a => a.RoutePin(Pin, Vector, level: true));
        using FileDescriptor raise = EventFd(), end = EventFd();
        machine.Vm.AddIrqfd(raise.Number, Pin, end.Number);
        Signal(raise);
        Assert.Equal([1, Vector], machine.Log.WaitFor(2));
        Assert.Equal(1UL, Take(end));
    }

    [SkippableFact]
    public void A_message_is_an_interrupt()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(_ => { });
        Assert.True(machine.Vm.SignalMsi(0xFEE0_0000, Vector));
        Assert.Equal([1, Vector], machine.Log.WaitFor(2));
        // APIC 7 does not exist.
        Assert.False(machine.Vm.SignalMsi(0xFEE0_7000, Vector));
    }

    [SkippableFact]
    public void A_route_turns_an_eventfd_into_a_message()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(_ => { });
        var msi = new kvm_irq_routing_msi { address_lo = 0xFEE0_0000, data = Vector };
        machine.Vm.SetGsiRouting([new kvm_irq_routing_entry { gsi = 30, type = KVM_IRQ_ROUTING_MSI, msi = msi }]);
        using FileDescriptor eventFd = EventFd();
        machine.Vm.AddIrqfd(eventFd.Number, 30);
        Signal(eventFd);
        Assert.Equal([1, Vector], machine.Log.WaitFor(2));
    }

    [SkippableFact]
    public void A_non_maskable_interrupt_is_delivered()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(_ => { }, vector: 2, enableInterrupts: false);
        _ = machine.Boot.Invoke(vcpu =>
        {
            vcpu.Nmi();
            return 0;
        });
        Assert.Equal([1, 2], machine.Log.WaitFor(2));
    }

    [SkippableTheory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void A_doorbell_rings_without_an_exit(bool port, bool match)
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new AccessRecorder();
        (port ? machine.Ports : machine.Mmio).Add(port ? DoorbellPort : Doorbell, 16, device, "recorder");
        using FileDescriptor bell = EventFd();
        machine.Vm.AddIoEventFd(bell.Number, port ? DoorbellPort : Doorbell, 2, port, match ? 7 : null);
        machine.Load(Payload.Long(a =>
        {
            foreach (int value in new[] { 7, 8, 7 })
            {
                a.mov(eax, value);
                a.mov(dx, DoorbellPort);
                a.mov(rbx, Doorbell);
                if (port)
                    a.@out(dx, ax);
                else
                    a.mov(__word_ptr[rbx], ax);
            }
            // Another width is another address as KVM sees it.
            if (port)
                a.@out(dx, eax);
            else
                a.mov(__dword_ptr[rbx], eax);
            a.Done();
        })).Run();
        Assert.Equal(match ? 2UL : 3UL, Take(bell));
        Assert.Equal(match ? [(true, 0UL, 2, 8UL), (true, 0UL, 4, 7UL)] : [(true, 0UL, 4, 7UL)], device.All);
        machine.Vm.RemoveIoEventFd(bell.Number, port ? DoorbellPort : Doorbell, 2, port, match ? 7 : null);
        Assert.Throws<VmmException>(() => machine.Vm.RemoveIoEventFd(bell.Number, port ? DoorbellPort : Doorbell, 2, port, match ? 7 : null));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_doorbell_of_any_width_rings_without_an_exit(bool user)
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new AccessRecorder();
        machine.Mmio.Add(Doorbell, 16, device, "recorder");
        using FileDescriptor bell = EventFd();
        machine.Vm.AddIoEventFd(bell.Number, Doorbell, 0);
        byte[] code = Payload.Long(a =>
        {
            a.mov(rbx, Doorbell);
            a.mov(__byte_ptr[rbx], 1);
            a.mov(__word_ptr[rbx], 1);
            a.mov(__dword_ptr[rbx], 1);
            a.mov(__dword_ptr[rbx + 4], 1);
            a.DoneByMemory();
        });
        (user ? machine.LoadUser(code) : machine.Load(code)).Run();
        Assert.Equal(3UL, Take(bell));
        Assert.Equal([(true, 4UL, 4, 1UL)], device.All);
    }

    /// <summary>A guest that waits for interrupts and logs the vector of each; returns once it waits.</summary>
    private static TestMachine Waiting(Action<Assembler> setUp, byte vector = Vector, bool enableInterrupts = true)
    {
        const ulong handler = Payload.Address + 0x1000;
        var machine = new TestMachine();
        machine.Memory.Write(handler, InterruptPayload.Handler(vector, handler));
        machine.Load(Payload.Long(a =>
        {
            a.EnableLocalApic();
            setUp(a);
            if (enableInterrupts)
            {
                a.WaitForInterrupts();
                return;
            }
            a.Log(1);
            a.Spin();
        }));
        machine.SetVector(vector, handler);
        machine.Boot.Start();
        Assert.Equal([1], machine.Log.WaitFor(1));
        return machine;
    }

    private static FileDescriptor EventFd()
    {
        int number = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        Assert.True(number >= 0);
        return new FileDescriptor(number);
    }

    private static void Signal(FileDescriptor eventFd)
    {
        ulong one = 1;
        Assert.Equal(8, write(eventFd.Number, &one, 8));
    }

    /// <summary>What an eventfd has counted; waits for the first.</summary>
    private static ulong Take(FileDescriptor eventFd)
    {
        var wait = new pollfd { fd = eventFd.Number, events = POLLIN };
        Assert.Equal(1, poll(&wait, 1, (int)TestMachine.Watchdog.TotalMilliseconds));
        ulong count;
        Assert.Equal(8, read(eventFd.Number, &count, 8));
        return count;
    }
}
