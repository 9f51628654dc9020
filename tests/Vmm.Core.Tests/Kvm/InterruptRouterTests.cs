using Iced.Intel;
using Vmm.Core.Bus;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Core.Tests.Kvm;

/// <summary>Interrupts through the routing table, and doorbells, with a guest at the other end.</summary>
[Collection(nameof(KvmCollection))]
public sealed class InterruptRouterTests
{
    internal const ulong Apic = 0xFEE0_0000;
    internal const byte FirstVector = 0x45;
    internal const byte SecondVector = 0x46;
    internal const byte PinVector = 0x47;
    internal const int Pin = 5;

    [SkippableFact]
    public void A_message_follows_its_route()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting();
        var router = new KvmInterruptRouter(machine.Vm);
        // Not routed: nobody hears it. KVM leaves that raise to a worker, which looks at the table when it gets to run, and waits for the
        // worker when the message goes; the next one has the same GSI.
        using (IMessageInterrupt unrouted = router.CreateMessage())
            unrouted.Raise();
        using IMessageInterrupt first = router.CreateMessage(), second = router.CreateMessage();
        Assert.True(first.Route(Apic, FirstVector));
        Assert.True(second.Route(Apic, SecondVector));
        first.Raise();
        Assert.Equal([1, FirstVector], machine.Log.WaitFor(2));
        second.Raise();
        Assert.Equal([1, FirstVector, SecondVector], machine.Log.WaitFor(3));
        Assert.True(first.Route(Apic, SecondVector));
        first.Raise();
        Assert.Equal([1, FirstVector, SecondVector, SecondVector], machine.Log.WaitFor(4));
        first.Unroute();
        first.Raise();
        second.Raise();
        Assert.Equal([1, FirstVector, SecondVector, SecondVector, SecondVector], machine.Log.WaitFor(5));
    }

    [SkippableFact]
    public void The_table_is_set_only_when_it_changes()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var router = new KvmInterruptRouter(machine.Vm);
        IMessageInterrupt first = router.CreateMessage(), second = router.CreateMessage();
        for (int i = 0; i < 3; i++)
            Assert.True(first.Route(Apic, FirstVector));
        second.Unroute();
        Assert.Equal((1, 1), (router.Updates, router.MessageRoutes));
        first.Dispose();
        first.Dispose();
        Assert.False(first.Route(Apic, FirstVector));
        Assert.Equal((2, 0), (router.Updates, router.MessageRoutes));
        second.Dispose();
        // GSIs are given again.
        for (int i = 0; i < 5000; i++)
            router.CreateMessage().Dispose();
    }

    [SkippableFact]
    public void Pins_work_beside_messages()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(a => a.RoutePin(Pin, PinVector));
        var router = new KvmInterruptRouter(machine.Vm);
        using IMessageInterrupt message = router.CreateMessage();
        Assert.True(message.Route(Apic, FirstVector));
        using (IInterruptTrigger pin = router.ConnectPin(Pin))
        {
            pin.Raise();
            Assert.Equal([1, PinVector], machine.Log.WaitFor(2));
            pin.Raise();
            Assert.Equal([1, PinVector, PinVector], machine.Log.WaitFor(3));
        }
        var line = new KvmIrqLine(machine.Vm, Pin);
        line.Set(true);
        Assert.Equal([1, PinVector, PinVector, PinVector], machine.Log.WaitFor(4));
    }

    [SkippableFact]
    public void A_pin_is_high_while_any_of_its_wires_is()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting(a => a.RoutePin(16, PinVector));
        var router = new KvmInterruptRouter(machine.Vm);
        IInterruptLine first = router.ConnectShared(16), second = router.ConnectShared(16);
        // The pin is set up for edges here: each rise of the whole is one interrupt.
        first.Set(true);
        Assert.Equal([1, PinVector], machine.Log.WaitFor(2));
        second.Set(true);
        first.Set(false);
        second.Set(false);
        first.Set(true);
        Assert.Equal([1, PinVector, PinVector], machine.Log.WaitFor(3));
    }

    [SkippableFact]
    public void A_message_that_kvm_does_not_know_harms_no_other()
    {
        HostKvm.Needed();
        using TestMachine machine = Waiting();
        // With 32-bit APIC ids KVM checks the upper half of an address.
        Skip.IfNot(
            machine.Vm.TryEnableCapability(LibC.KVM_CAP_X2APIC_API, LibC.KVM_X2APIC_API_USE_32BIT_IDS),
            "This KVM has no 32-bit APIC ids.");
        var router = new KvmInterruptRouter(machine.Vm);
        using IMessageInterrupt good = router.CreateMessage(), bad = router.CreateMessage();
        Assert.True(good.Route(Apic, FirstVector));
        Assert.False(bad.Route(Apic | 0xFFUL << 32, SecondVector));
        bad.Raise();
        good.Raise();
        Assert.Equal([1, FirstVector], machine.Log.WaitFor(2));
        Assert.Equal(1, router.MessageRoutes);
    }

    [SkippableFact]
    public void Doorbells_come_and_go_without_an_exception()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var registrar = new KvmDoorbellRegistrar(machine.Vm);
        var recorder = new AccessRecorder();
        machine.Mmio.Add(0xC000_0000, 16, recorder, "recorder");
        using EventNotifier exact = new(), any = new();
        Assert.True(registrar.TryConnect(exact, 0xC000_0000, 4, 7));
        Assert.False(registrar.TryConnect(exact, 0xC000_0000, 4, 7));
        Assert.True(registrar.TryConnect(any, 0xC000_0008, 0, null));
        Assert.False(registrar.TryConnect(any, 0xC000_0008, 3, null));
        registrar.Disconnect(exact, 0xC000_0004, 4, 7);
        machine.Load(Payload.Long(a =>
        {
            a.mov(rbx, 0xC000_0000);
            a.mov(__dword_ptr[rbx], 7);
            a.mov(__dword_ptr[rbx], 8);
            a.mov(__word_ptr[rbx + 8], 1);
            a.Done();
        })).Run();
        Assert.True(exact.TryConsume());
        Assert.True(any.TryConsume());
        Assert.Equal([(true, 0UL, 4, 8UL)], recorder.All);
        registrar.Disconnect(exact, 0xC000_0000, 4, 7);
        registrar.Disconnect(any, 0xC000_0008, 0, null);
        Assert.True(registrar.TryConnect(exact, 0xC000_0000, 4, 7));
    }

    /// <summary>A guest that waits for interrupts and logs the vector of each; returns once it waits.</summary>
    internal static TestMachine Waiting(Action<Assembler>? setUp = null)
    {
        var machine = new TestMachine();
        byte[] vectors = [FirstVector, SecondVector, PinVector];
        for (int i = 0; i < vectors.Length; i++)
        {
            ulong handler = Payload.Address + 0x1000 * (ulong)(i + 1);
            machine.Memory.Write(handler, InterruptPayload.Handler(vectors[i], handler));
        }
        machine.Load(Payload.Long(a =>
        {
            a.EnableLocalApic();
            setUp?.Invoke(a);
            a.WaitForInterrupts();
        }));
        for (int i = 0; i < vectors.Length; i++)
            machine.SetVector(vectors[i], Payload.Address + 0x1000 * (ulong)(i + 1));
        machine.Boot.Start();
        Assert.Equal([1], machine.Log.WaitFor(1));
        return machine;
    }
}
