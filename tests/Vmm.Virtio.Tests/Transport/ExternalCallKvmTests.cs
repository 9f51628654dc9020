using Vmm.Core.Bus;
using Vmm.Core.Events;
using Vmm.Core.Kvm;
using Vmm.Core.Tests.Kvm;
using Vmm.Core.Tests.Payloads;
using Vmm.Virtio.Transport.Mmio;

namespace Vmm.Virtio.Tests.Transport;

/// <summary>
/// Call eventfds by KVM's irqfds to a vCPU that logs each interrupt's vector. A mark, which is another interrupt, shows that nothing more
/// came before it.
/// </summary>
[Collection(nameof(KvmCollection))]
public sealed class ExternalCallKvmTests : IDisposable
{
    private const ulong Apic = 0xFEE0_0000;
    private const byte Configuration = 0x44;
    private const byte FirstQueue = 0x45;
    private const byte SecondQueue = 0x46;
    private const byte Mark = 0x47;
    private const byte PinVector = 0x48;
    private const int Pin = 5;

    private readonly TestMachine _machine;
    private readonly KvmInterruptRouter _router;
    private readonly IMessageInterrupt _mark;
    private readonly EventLoop _loop = new("relay");
    private readonly List<byte> _expected = [1];

    public ExternalCallKvmTests()
    {
        HostKvm.Needed();
        _machine = new TestMachine();
        byte[] vectors = [Configuration, FirstQueue, SecondQueue, Mark, PinVector];
        for (int i = 0; i < vectors.Length; i++)
        {
            ulong handler = Payload.Address + 0x1000 * (ulong)(i + 1);
            _machine.Memory.Write(handler, InterruptPayload.Handler(vectors[i], handler));
        }
        _machine.Load(Payload.Long(a =>
        {
            a.EnableLocalApic();
            a.RoutePin(Pin, PinVector);
            a.WaitForInterrupts();
        }));
        for (int i = 0; i < vectors.Length; i++)
            _machine.SetVector(vectors[i], Payload.Address + 0x1000 * (ulong)(i + 1));
        _machine.Boot.Start();
        Assert.Equal(_expected, _machine.Log.WaitFor(1));
        _router = new KvmInterruptRouter(_machine.Vm);
        _mark = _router.CreateMessage();
        Assert.True(_mark.Route(Apic, Mark));
    }

    public void Dispose()
    {
        _mark?.Dispose();
        _machine?.Dispose();
        _loop.Dispose();
    }

    [SkippableFact]
    public void Msix_masks_keep_and_unmasks_deliver()
    {
        using PciMachine pci = Start();
        EventNotifier[] calls = Calls(pci);
        calls[0].Signal();
        Expect(FirstQueue);
        calls[1].Signal();
        Expect(SecondQueue);
        pci.Device.Activation!.Host.SignalConfigurationChange();
        Expect(Configuration);

        for (int i = 0; i < 10; i++)
        {
            Mask(pci, 1, true);
            Assert.Equal(0UL, pci.Read(pci.MsixPending, 8));
            calls[0].Signal();
            calls[0].Signal();
            ExpectMark();
            Assert.Equal(2UL, pci.Read(pci.MsixPending, 8));
            calls[1].Signal();
            Expect(SecondQueue);
            Mask(pci, 1, false);
            Expect(FirstQueue);
            Assert.Equal(0UL, pci.Read(pci.MsixPending, 8));
            ExpectMark();

            // Masks that come and go with nothing pending send nothing.
            Mask(pci, 1, true);
            Mask(pci, 1, false);
            ExpectMark();
        }

        pci.SetConfig(pci.Msix + 2, 0xC000, 2);
        calls[0].Signal();
        calls[2].Signal();
        ExpectMark();
        Assert.Equal(0xAUL, pci.Read(pci.MsixPending, 8));
        // The third queue's vector is masked by itself too.
        Mask(pci, 3, true);
        pci.SetConfig(pci.Msix + 2, 0x8000, 2);
        Expect(FirstQueue);
        Assert.Equal(8UL, pci.Read(pci.MsixPending, 8));
        ExpectMark();
    }

    [SkippableFact]
    public void Messages_and_vectors_change_under_signals()
    {
        using PciMachine pci = Start();
        EventNotifier[] calls = Calls(pci);
        // As an operating system moves an interrupt to another processor: masked, written, unmasked.
        pci.SetVector(1, Apic, SecondQueue, masked: false);
        calls[0].Signal();
        Expect(SecondQueue);
        // And while it is not masked.
        pci.Write(pci.MsixTable + 16 + 8, FirstQueue, 4);
        calls[0].Signal();
        Expect(FirstQueue);

        // Two queues on one vector, then the first on none.
        SetQueueVector(pci, 1, 1);
        calls[1].Signal();
        Expect(FirstQueue);
        calls[0].Signal();
        Expect(FirstQueue);
        SetQueueVector(pci, 0, 0xFFFF);
        calls[0].Signal();
        ExpectMark();
        SetQueueVector(pci, 0, 2);
        Expect(SecondQueue);
        ExpectMark();

        pci.Write(pci.Structure(1).Address + 0x14, 0, 1);
        foreach (EventNotifier call in calls)
            call.Signal();
        ExpectMark();
    }

    [SkippableFact]
    public void A_signal_beside_a_mask_arrives_once()
    {
        using PciMachine pci = Start();
        EventNotifier call = Calls(pci)[0];
        const int rounds = 300;
        using var together = new Barrier(2);
        var back = new Thread(() =>
        {
            for (int i = 0; i < rounds; i++)
            {
                together.SignalAndWait();
                Thread.SpinWait(20 * i);
                call.Signal();
                together.SignalAndWait();
            }
        });
        back.Start();
        for (int i = 0; i < rounds; i++)
        {
            int before = _machine.Log.Bytes.Length;
            together.SignalAndWait();
            Mask(pci, 1, true);
            if (i % 3 == 0)
                pci.Write(pci.MsixTable + 16 + 8, i % 2 == 0 ? SecondQueue : FirstQueue, 4);
            Mask(pci, 1, false);
            together.SignalAndWait();
            _machine.Log.WaitFor(before + 1);
            Assert.Equal(0UL, pci.Read(pci.MsixPending, 8));
        }
        back.Join();
        // An old KVM may count one that came in the middle of an unmask twice.
        Assert.InRange(_machine.Log.Bytes.Length, rounds + 1, 2 * rounds + 1);
        Assert.All(_machine.Log.Bytes[1..], vector => Assert.True(vector is FirstQueue or SecondQueue));
    }

    [SkippableFact]
    public void A_restored_function_goes_on()
    {
        using PciMachine pci = Start();
        Mask(pci, 2, true);
        Calls(pci)[1].Signal();
        pci.Pci.Pause();
        using PciMachine other = Make();
        other.Pci.Restore(pci.Pci.Save());
        other.Pci.Resume();
        EventNotifier[] calls = Calls(other);
        calls[0].Signal();
        Expect(FirstQueue);
        Assert.Equal(4UL, other.Read(other.MsixPending, 8));
        other.SetVector(2, Apic, SecondQueue, masked: false);
        Expect(SecondQueue);
        calls[1].Signal();
        Expect(SecondQueue);
        ExpectMark();
    }

    [SkippableFact]
    public void Mmio_has_edges_on_its_pin()
    {
        var device = new FakeDevice { IsExternal = true };
        var mmio = new VirtioMmioTransport(device, BusAccess.NoMemory, 0xC000_1000, [], _router.ConnectPin(Pin), new FakeDoorbells());
        foreach (uint status in new[] { 0u, 1u, 3u })
            mmio.Write32(0x070, status);
        mmio.Write32(0x024, 1);
        mmio.Write32(0x020, 1);
        mmio.Write32(0x070, 11);
        for (uint queue = 0; queue < 3; queue++)
        {
            mmio.Write32(0x030, queue);
            mmio.Write32(0x044, 1);
        }
        mmio.Write32(0x070, 15);
        EventNotifier[] calls = [.. device.Running.Values.OrderBy(setup => setup.Index).Select(setup => setup.Call!)];
        for (int i = 0; i < 3; i++)
        {
            calls[i].Signal();
            Expect(PinVector);
        }
        device.Activation!.Host.SignalQueue(0);
        Expect(PinVector);
        mmio.Write32(0x070, 0);
        calls[0].Signal();
        ExpectMark();
        mmio.Dispose();
        ExpectMark();
    }

    private PciMachine Make() => new(new FakeDevice { IsExternal = true }, router: _router, relay: () => _loop);

    private PciMachine Start()
    {
        PciMachine pci = Make();
        pci.Enable();
        pci.SetConfig(pci.Msix + 2, 0x8000, 2);
        pci.SetVector(0, Apic, Configuration, masked: false);
        pci.SetVector(1, Apic, FirstQueue, masked: false);
        pci.SetVector(2, Apic, SecondQueue, masked: false);
        pci.SetVector(3, Apic, SecondQueue, masked: false);
        pci.Start();
        return pci;
    }

    private static EventNotifier[] Calls(PciMachine pci) =>
        [.. pci.Device.Running.Values.OrderBy(setup => setup.Index).Select(setup => setup.Call!)];

    private static void Mask(PciMachine pci, int vector, bool masked) =>
        pci.Write(pci.MsixTable + (ulong)(vector * 16) + 12, masked ? 1u : 0, 4);

    private static void SetQueueVector(PciMachine pci, uint queue, ulong vector)
    {
        ulong common = pci.Structure(1).Address;
        pci.Write(common + 0x16, queue, 2);
        pci.Write(common + 0x1A, vector, 2);
    }

    private void Expect(byte vector)
    {
        _expected.Add(vector);
        Assert.Equal(_expected, _machine.Log.WaitFor(_expected.Count));
    }

    private void ExpectMark()
    {
        _mark.Raise();
        Expect(Mark);
    }
}
