using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Events;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Transport;
using Vmm.Virtio.Transport.Mmio;

namespace Vmm.Virtio.Tests.Transport;

/// <summary>Interrupts of devices whose queues others serve: by an eventfd for each queue. Everything but KVM is real.</summary>
public sealed class ExternalCallTests : IDisposable
{
    private const ulong Apic = 0xFEE0_0000;
    private static readonly TimeSpan s_watchdog = TimeSpan.FromSeconds(60);

    private readonly EventLoop _loop = new("relay");
    private readonly PciMachine _pci;
    private int _loopsTaken;

    public ExternalCallTests() => _pci = Make();

    public void Dispose()
    {
        _pci.Dispose();
        _loop.Dispose();
    }

    [Fact]
    public void Others_have_none()
    {
        using var pci = new PciMachine();
        pci.Enable().Start();
        Assert.All(pci.Device.Running.Values, setup => Assert.Null(setup.Call));
        Assert.Throws<ArgumentNullException>(() => new PciMachine(new FakeDevice { IsExternal = true }));
    }

    [Fact]
    public void A_queue_keeps_its_eventfd_for_life()
    {
        _pci.Enable().Start();
        EventNotifier[] calls = Calls(_pci);
        Assert.Equal(3, calls.Distinct().Count());
        _pci.Start();
        Assert.Equal(calls, Calls(_pci));
        _pci.PciBus.Reset();
        _pci.Enable().Start();
        Assert.Equal(calls, Calls(_pci));
    }

    [Fact]
    public void A_vector_that_can_be_sent_has_the_eventfds_of_its_queues()
    {
        StartMsix(_pci);
        EventNotifier[] calls = Calls(_pci);
        Assert.Equal([[], [calls[0]], [calls[1]], [calls[2]]], Attached(_pci));
        calls[1].Signal();
        Assert.Equal([0, 0, 1, 0], Raised(_pci));

        // Two queues on one, one on none, one on one that does not exist.
        SetQueueVector(_pci, 1, 1);
        SetQueueVector(_pci, 2, 77);
        Assert.Equal([[], [calls[0], calls[1]], [], []], Attached(_pci));
        calls[2].Signal();
        Assert.Equal([0, 0, 1, 0], Raised(_pci));
        SetQueueVector(_pci, 2, 3);
        Assert.Equal([0, 0, 1, 1], Raised(_pci));
        calls[0].Signal();
        Assert.Equal([0, 1, 1, 1], Raised(_pci));
        Assert.Equal(0, _loopsTaken);
    }

    [Fact]
    public void Masked_they_are_their_own_pending_bits()
    {
        StartMsix(_pci);
        EventNotifier[] calls = Calls(_pci);
        Mask(2, true);
        Assert.Empty(_pci.Router.Messages[2].Attached);
        Assert.Equal(0UL, _pci.Read(_pci.MsixPending, 8));
        calls[1].Signal();
        calls[1].Signal();
        Assert.Equal(4UL, _pci.Read(_pci.MsixPending, 8));
        Mask(2, false);
        Assert.Equal(0UL, _pci.Read(_pci.MsixPending, 8));
        Assert.Equal([0, 0, 1, 0], Raised(_pci));
        Mask(2, true);
        Assert.Equal(0UL, _pci.Read(_pci.MsixPending, 8));

        // All of them, by the function.
        _pci.SetConfig(_pci.Msix + 2, 0xC000, 2);
        Assert.All(Attached(_pci), Assert.Empty);
        calls[0].Signal();
        calls[1].Signal();
        Assert.Equal(6UL, _pci.Read(_pci.MsixPending, 8));
        _pci.SetConfig(_pci.Msix + 2, 0x8000, 2);
        Assert.Equal(4UL, _pci.Read(_pci.MsixPending, 8));
        Assert.Equal([0, 1, 1, 0], Raised(_pci));

        // Without the device.
        Assert.Empty(_pci.Device.Begun);
    }

    [Fact]
    public void A_new_message_is_followed_and_one_to_nowhere_waits()
    {
        StartMsix(_pci);
        FakeMessage message = _pci.Router.Messages[1];
        int attachments = message.Attachments;
        _pci.Write(_pci.MsixTable + 16 + 8, 0x99, 4);
        Assert.Equal((Apic, 0x99u), message.Routed);
        Assert.Equal((1, attachments), (message.Attached.Count, message.Attachments));
        // Not a local APIC's: nothing is lost, it can be seen as pending.
        _pci.Write(_pci.MsixTable + 16, 0x1000, 4);
        Assert.Empty(message.Attached);
        Calls(_pci)[0].Signal();
        Assert.Equal(2UL, _pci.Read(_pci.MsixPending, 8));
        _pci.Write(_pci.MsixTable + 16, Apic, 4);
        Assert.Equal((1, 0UL), (message.Raised, _pci.Read(_pci.MsixPending, 8)));
    }

    /// <summary>Whatever a driver does in whatever order: nothing is lost, nothing comes twice, and it is pending where it was held up.</summary>
    [Fact]
    public void Vectors_follow_the_model()
    {
        var step = from kind in Gen.Choose(0, 7)
                   from queue in Gen.Choose(0, 2)
                   from vector in Gen.Choose(0, 4)
                   select (kind, queue, vector);
        Prop.ForAll(Gen.ArrayOf(step, 60).ToArbitrary(), steps =>
        {
            using PciMachine pci = Make();
            StartMsix(pci);
            EventNotifier[] calls = Calls(pci);
            bool function = false;
            bool[] masked = new bool[4], astray = new bool[4], signalled = new bool[3];
            int[] vectors = [1, 2, 3], raised = new int[4];
            foreach ((int kind, int queue, int vector) in steps)
            {
                ulong entry = pci.MsixTable + (ulong)(16 * (vector % 4));
                switch (kind)
                {
                    case <= 2:
                        calls[queue].Signal();
                        signalled[queue] = true;
                        break;
                    case 3 or 4:
                        masked[vector % 4] = kind == 3;
                        pci.Write(entry + 12, kind == 3 ? 1u : 0, 4);
                        break;
                    case 5:
                        function = !function;
                        pci.SetConfig(pci.Msix + 2, function ? 0xC000u : 0x8000, 2);
                        break;
                    case 6:
                        vectors[queue] = vector;
                        SetQueueVector(pci, (uint)queue, (ulong)vector);
                        break;
                    default:
                        astray[vector % 4] = !astray[vector % 4];
                        pci.Write(entry, astray[vector % 4] ? 0x1000u : Apic, 4);
                        break;
                }
                ulong pending = 0;
                for (int i = 0; i < calls.Length; i++)
                {
                    int at = vectors[i];
                    bool open = at < 4 && !function && !masked[at] && !astray[at];
                    Assert.Equal(open ? [at] : [], Enumerable.Range(0, 4).Where(v => pci.Router.Messages[v].Attached.Contains(calls[i])));
                    if (signalled[i] && open)
                    {
                        signalled[i] = false;
                        raised[at]++;
                    }
                    pending |= signalled[i] && at < 4 ? 1UL << at : 0;
                }
                Assert.Equal(raised, Raised(pci));
                Assert.Equal(pending, pci.Read(pci.MsixPending, 8));
            }
        }).QuickCheckThrowOnFailure();
    }

    /// <summary>Neither a driver nor who serves the queues, whatever both do, reaches a defect of ours.</summary>
    [Fact]
    public void No_access_throws()
    {
        var device = new FakeDevice { IsExternal = true };
        using var pci = new PciMachine(device, relay: () => _loop);
        device.Stopping = _ => device.Holds = false;
        var access = from kind in Gen.Choose(0, 15)
                     from offset in Gen.OneOf(Gen.Choose(0, 0x3F), Gen.Elements(0x14, 0x16, 0x1A, 0x1C, 0x3A), Gen.Choose(0, 0x5FFF))
                     from width in Gen.Elements(1, 2, 2, 4, 8)
                     from value in Gen.OneOf(Gen.Choose(0, 16), Gen.Choose(int.MinValue, int.MaxValue))
                     select (kind, offset, width, value);
        Prop.ForAll(Gen.ArrayOf(access, 200).ToArbitrary(), accesses =>
        {
            StartMsix(pci, VirtioFeatures.Version1 | VirtioFeatures.RingReset);
            foreach ((int kind, int offset, int width, int value) in accesses)
            {
                switch (kind)
                {
                    case 0:
                        device.Holds = value % 2 == 0;
                        break;
                    case 1:
                        pci.SetConfig(pci.Msix + 2, (ulong)value << 14, 2);
                        break;
                    case 2 when device.Running.TryGetValue(offset % 3, out VirtQueueSetup setup):
                        setup.Call!.Signal();
                        break;
                    case 3:
                        device.LetGoDuring(pci.Pci.Pause);
                        _ = pci.Pci.Save();
                        pci.Pci.Resume();
                        break;
                    case 4:
                        pci.SetConfig(0x04, (ulong)value & 0x406 | 2, 2);
                        break;
                    case < 11:
                        pci.Write(pci.Bar(0) + (ulong)offset, (ulong)value, width);
                        break;
                    default:
                        _ = pci.Read(pci.Bar(0) + (ulong)offset, width);
                        break;
                }
            }
            device.Holds = false;
        }).QuickCheckThrowOnFailure();
        Assert.DoesNotContain(pci.Log, line => line.Contains("this program", StringComparison.Ordinal));
        device.Holds = false;
    }

    [Fact]
    public void Resets_take_them_away_and_forget_what_they_signalled()
    {
        StartMsix(_pci, VirtioFeatures.Version1 | VirtioFeatures.RingReset);
        EventNotifier[] calls = Calls(_pci);
        ulong common = _pci.Structure(1).Address;
        Mask(2, true);
        calls[1].Signal();
        _pci.Write(common + 0x16, 1, 2);
        _pci.Write(common + 0x3A, 1, 2);
        Assert.False(calls[1].IsSignalled);
        Assert.Equal(0UL, _pci.Read(_pci.MsixPending, 8));
        Assert.Equal([[], [calls[0]], [], [calls[2]]], Attached(_pci));

        Mask(1, true);
        calls[0].Signal();
        _pci.Write(common + 0x14, 0, 1);
        Assert.All(Attached(_pci), Assert.Empty);
        Assert.All(calls, call => Assert.False(call.IsSignalled));
        Assert.Equal([0, 0, 0, 0], Raised(_pci));

        StartMsix(_pci);
        Assert.Equal([[], [calls[0]], [calls[1]], [calls[2]]], Attached(_pci));
        _pci.PciBus.Reset();
        Assert.All(Attached(_pci), Assert.Empty);
    }

    [Fact]
    public void A_bar_that_moves_changes_nothing()
    {
        StartMsix(_pci);
        int[] before = [.. _pci.Router.Messages.Select(m => m.Attachments)];
        _pci.SetBar(0, 0xD200_0000);
        _pci.SetConfig(0x04, 4, 2);
        _pci.SetConfig(0x04, 6, 2);
        Assert.Equal(before, _pci.Router.Messages.Select(m => m.Attachments));
        Calls(_pci)[0].Signal();
        Assert.Equal([0, 1, 0, 0], Raised(_pci));
    }

    [Fact]
    public void Without_msix_a_thread_sets_the_status_and_the_line()
    {
        _pci.Enable();
        Assert.Equal(0, _loopsTaken);
        _pci.Start();
        Assert.Equal(1, _loopsTaken);
        EventNotifier[] calls = Calls(_pci);
        ulong isr = _pci.Structure(3).Address;
        foreach (EventNotifier call in calls)
        {
            call.Signal();
            Assert.True(SpinWait.SpinUntil(() => _pci.Line.High, s_watchdog));
            Assert.Equal((1UL, false), (_pci.Read(isr, 1), _pci.Line.High));
        }

        // With MSI-X, nobody watches; back again, what came meanwhile counts.
        for (int vector = 0; vector < 4; vector++)
            _pci.SetVector(vector, Apic, 0x40, masked: vector == 1);
        _pci.SetConfig(_pci.Msix + 2, 0x8000, 2);
        foreach (EventNotifier call in calls)
            call.Signal();
        Assert.Equal([0, 0, 1, 1], Raised(_pci));
        _loop.Invoke(() => { });
        Assert.Equal((2UL, 0UL), (_pci.Read(_pci.MsixPending, 8), _pci.Read(isr, 1)));
        _pci.SetConfig(_pci.Msix + 2, 0, 2);
        Assert.True(SpinWait.SpinUntil(() => _pci.Line.High, s_watchdog));
        Assert.Equal((1UL, false), (_pci.Read(isr, 1), calls[0].IsSignalled));

        _pci.Write(_pci.Structure(1).Address + 0x14, 0, 1);
        calls[0].Signal();
        _loop.Invoke(() => { });
        Assert.Equal((0UL, true), (_pci.Read(isr, 1), calls[0].IsSignalled));
        Assert.Equal(1, _loopsTaken);
    }

    /// <summary>A signal beside a change to MSI-X goes to the line or to the vector, whose driver looks at all queues after the change.</summary>
    [Fact]
    public void A_signal_beside_msix_is_not_left_in_between()
    {
        _pci.Enable();
        for (int vector = 0; vector < 4; vector++)
            _pci.SetVector(vector, Apic, 0x40, masked: false);
        _pci.Start();
        EventNotifier call = Calls(_pci)[0];
        ulong isr = _pci.Structure(3).Address;
        for (int i = 0; i < 200; i++)
        {
            int before = _pci.Router.Messages[1].Raised;
            call.Signal();
            _pci.SetConfig(_pci.Msix + 2, 0x8000, 2);
            // Consumed by the relay, which had it on the line before that was given up, or delivered.
            Assert.InRange(_pci.Router.Messages[1].Raised, before, before + 1);
            Assert.False(call.IsSignalled);
            before = _pci.Router.Messages[1].Raised;
            call.Signal();
            Assert.Equal(before + 1, _pci.Router.Messages[1].Raised);
            _pci.SetConfig(_pci.Msix + 2, 0, 2);
            Assert.Equal(0UL, _pci.Read(isr, 1));
            call.Signal();
            Assert.True(SpinWait.SpinUntil(() => _pci.Line.High, s_watchdog));
            Assert.Equal(1UL, _pci.Read(isr, 1));
        }
    }

    [Fact]
    public void What_is_pending_is_saved()
    {
        StartMsix(_pci);
        Mask(2, true);
        Calls(_pci)[1].Signal();
        _pci.Pci.Pause();
        using PciMachine other = Make();
        other.Pci.Restore(_pci.Pci.Save());
        other.Pci.Resume();
        EventNotifier[] calls = Calls(other);
        Assert.Equal([[], [calls[0]], [], [calls[2]]], Attached(other));
        Assert.Equal(4UL, other.Read(other.MsixPending, 8));
        other.Write(other.MsixTable + 2 * 16 + 12, 0, 4);
        Assert.Equal((0UL, 1), (other.Read(other.MsixPending, 8), other.Router.Messages[2].Raised));
        calls[1].Signal();
        Assert.Equal(2, other.Router.Messages[2].Raised);
        // It is saved, not taken.
        _pci.Pci.Resume();
        Assert.True(Calls(_pci)[1].IsSignalled);
    }

    [Fact]
    public void A_line_that_is_about_to_rise_is_saved()
    {
        _pci.Enable().Start();
        using var held = new ManualResetEventSlim();
        using var holding = new ManualResetEventSlim();
        EventNotifier call = Calls(_pci)[2];
        _pci.Pci.Pause();
        // The relay has other things to do when the state is saved.
        _loop.Post(() =>
        {
            holding.Set();
            held.Wait(s_watchdog);
        });
        Assert.True(holding.Wait(s_watchdog));
        call.Signal();
        VirtioTransportState? state = null;
        var saver = new Thread(() => state = _pci.Pci.Save());
        saver.Start();
        held.Set();
        saver.Join();
        Assert.Equal(1, state!.Pci!.InterruptStatus & 1);
        using PciMachine other = Make();
        other.Pci.Restore(state);
        Assert.True(other.Line.High);
        other.Pci.Resume();
        Assert.Equal(1UL, other.Read(other.Structure(3).Address, 1));
        Calls(other)[0].Signal();
        Assert.True(SpinWait.SpinUntil(() => other.Line.High, s_watchdog));
    }

    [Fact]
    public void A_host_that_refuses_costs_the_device()
    {
        _pci.Router.Messages[2].Refuses = true;
        _pci.Enable();
        _pci.SetConfig(_pci.Msix + 2, 0x8000, 2);
        _pci.SetVector(2, Apic, 0x40, masked: false);
        ulong status = _pci.Structure(1).Address + 0x14;
        _pci.Write(status, 1, 1);
        SetQueueVector(_pci, 1, 2);
        Assert.Equal(65UL, _pci.Read(status, 1));
        Assert.Equal(["fake0: stopped until its driver resets it: the host does not connect its interrupts to the guest"], _pci.Log);
    }

    [Fact]
    public void Mmio_has_them_on_its_pin_while_the_driver_is_ready()
    {
        var device = new FakeDevice { IsExternal = true };
        var interrupt = new FakeTrigger();
        var mmio = new VirtioMmioTransport(device, BusAccess.NoMemory, 0xC000_1000, [], interrupt, new FakeDoorbells());
        StartMmio(mmio, ready: false);
        Assert.Empty(interrupt.Attached);
        Assert.Equal(0u, mmio.Read32(0x060));
        mmio.Write32(0x070, 15);
        EventNotifier call = device.Running[2].Call!;
        Assert.Equal(3, interrupt.Attached.Count);
        call.Signal();
        Assert.Equal(1, interrupt.Raised);
        Assert.Equal(1u, mmio.Read32(0x060));
        mmio.Write32(0x064, 1);
        Assert.Equal(1u, mmio.Read32(0x060));
        device.Activation!.Host.SignalConfigurationChange();
        Assert.Equal(3u, mmio.Read32(0x060));
        mmio.Write32(0x064, 3);
        Assert.Equal((1u, 2), (mmio.Read32(0x060), interrupt.Raised));

        mmio.Pause();
        VirtioTransportState state = mmio.Save();
        mmio.Resume();
        // An edge too many, for the one that another machine may have had.
        Assert.Equal(3, interrupt.Raised);
        mmio.Write32(0x070, 0);
        call.Signal();
        Assert.Equal((0u, 0, 3), (mmio.Read32(0x060), interrupt.Attached.Count, interrupt.Raised));
        StartMmio(mmio, ready: true);
        Assert.Equal((1u, 3, 3), (mmio.Read32(0x060), interrupt.Attached.Count, interrupt.Raised));
        mmio.Dispose();
        Assert.True(interrupt.IsDisposed);

        var (other, edge) = (new FakeDevice { IsExternal = true }, new FakeTrigger());
        using var restored = new VirtioMmioTransport(other, BusAccess.NoMemory, 0xC000_1000, [], edge, new FakeDoorbells());
        restored.Restore(state);
        restored.Resume();
        Assert.Equal((1u, 3, 1), (restored.Read32(0x060), edge.Attached.Count, edge.Raised));
        other.Running[1].Call!.Signal();
        Assert.Equal(2, edge.Raised);
    }

    [Fact]
    public void Mmio_that_is_refused_its_pin_does_not_start()
    {
        var device = new FakeDevice { IsExternal = true };
        var log = new List<string>();
        using var mmio = new VirtioMmioTransport(device, BusAccess.NoMemory, 0xC000_1000, [], new FakeTrigger { Refuses = true }, new FakeDoorbells(), log.Add);
        StartMmio(mmio, ready: true);
        Assert.Equal(0x4Fu, mmio.Read32(0x070));
        Assert.Empty(device.Running);
        Assert.Single(log);
    }

    private static EventNotifier[] Calls(PciMachine pci) =>
        [.. pci.Device.Running.Values.OrderBy(setup => setup.Index).Select(setup => setup.Call!)];

    private static EventNotifier[][] Attached(PciMachine pci) => [.. pci.Router.Messages.Select(message => message.Attached.ToArray())];

    private static int[] Raised(PciMachine pci) => [.. pci.Router.Messages.Select(message => message.Raised)];

    private static void StartMsix(PciMachine pci, ulong features = VirtioFeatures.Version1)
    {
        pci.Enable();
        pci.SetConfig(pci.Msix + 2, 0x8000, 2);
        for (int vector = 0; vector < 4; vector++)
            pci.SetVector(vector, Apic, 0x40 + (uint)vector, masked: false);
        pci.Start(features);
    }

    private static void StartMmio(VirtioMmioTransport mmio, bool ready)
    {
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
        if (ready)
            mmio.Write32(0x070, 15);
    }

    private PciMachine Make() => new(new FakeDevice { IsExternal = true }, relay: () =>
    {
        _loopsTaken++;
        return _loop;
    });

    private void Mask(int vector, bool masked) => _pci.Write(_pci.MsixTable + (ulong)(vector * 16) + 12, masked ? 1u : 0, 4);

    private static void SetQueueVector(PciMachine pci, uint queue, ulong vector)
    {
        ulong common = pci.Structure(1).Address;
        pci.Write(common + 0x16, queue, 2);
        pci.Write(common + 0x1A, vector, 2);
    }
}
