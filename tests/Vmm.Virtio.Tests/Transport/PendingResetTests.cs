using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Virtio.Transport;
using Vmm.Virtio.Transport.Mmio;

namespace Vmm.Virtio.Tests.Transport;

/// <summary>Resets of a device that does not let go of its queues at once.</summary>
public sealed class PendingResetTests : IDisposable
{
    private static readonly TimeSpan s_watchdog = TimeSpan.FromSeconds(60);

    private readonly PciMachine _pci = new();
    private readonly EventLoop _loop = new("relay");
    private readonly ulong _common;

    public PendingResetTests()
    {
        _pci.Enable().Start(VirtioFeatures.Version1 | VirtioFeatures.RingReset);
        _common = _pci.Structure(1).Address;
        _pci.Device.Calls.Clear();
        _pci.Device.Holds = true;
        // Nothing but what a test expects to waits.
        _pci.Device.Stopping = _ => Assert.False(_pci.Device.Holds, "A vCPU would have waited.");
    }

    public void Dispose()
    {
        _pci.Device.Holds = false;
        _pci.Dispose();
        _loop.Dispose();
    }

    [Fact]
    public void The_status_reads_zero_when_all_queues_have_stopped()
    {
        Write(0x14, 0, 1);
        Assert.Equal([0, 1, 2], _pci.Device.Begun.Order());
        for (int i = 0; i < 3; i++)
            Assert.Equal(15UL, Read(0x14, 1));
        Assert.Empty(_pci.Device.Calls);
        _pci.Device.Holds = false;
        Assert.Equal(0UL, Read(0x14, 1));
        Assert.Equal(["stop 0", "stop 1", "stop 2", "reset"], _pci.Device.Calls);
        _pci.Start();
        Assert.Equal(3, _pci.Device.Running.Count);
    }

    /// <summary>Its back-end may go at any time, also between the end of a reset and the read that a driver waits for it with.</summary>
    [Fact]
    public void A_device_that_breaks_without_a_driver_has_been_reset_all_the_same()
    {
        _pci.Device.Holds = false;
        IVirtioHost host = _pci.Device.Activation!.Host;
        Write(0x14, 0, 1);
        host.NeedsReset("its back-end went");
        Assert.Equal(0UL, Read(0x14, 1));
        Write(0x14, 1, 1);
        Assert.Equal(65UL, Read(0x14, 1));
        Write(0x14, 0, 1);
        Write(0x14, 1, 1);
        Assert.Equal(1UL, Read(0x14, 1));
    }

    [Fact]
    public void Nothing_is_written_meanwhile()
    {
        Write(0x16, 1, 2);
        ulong[] before = [.. Registers()];
        Write(0x14, 0, 1);
        (int Offset, ulong Value, int Width)[] writes =
        [
            (0x00, 1, 4), (0x08, 0, 4), (0x0C, 0, 4), (0x10, 2, 2), (0x16, 2, 2), (0x18, 4, 2), (0x1A, 3, 2), (0x1C, 1, 2), (0x20, 0x5000, 4),
            (0x28, 0x5000, 8), (0x30, 0x5000, 8), (0x3A, 1, 2), (0x14, 0, 1), (0x14, 1, 1), (0x14, 15, 1), (0x14, 128, 1),
        ];
        foreach ((int offset, ulong value, int width) in writes)
            Write(offset, value, width);
        _pci.Write(_pci.Structure(4).Address, 0xEE, 1);
        Assert.Equal(before, Registers());
        Assert.Equal(0x10UL, _pci.Read(_pci.Structure(4).Address, 1));
        // What is not the device's goes on: vectors are masked, doorbells rung, the line's status read.
        _pci.SetVector(1, 0xFEE0_0000, 0x41, masked: true);
        Assert.Equal(0x41UL, _pci.Read(_pci.MsixTable + 16 + 8, 4));
        _pci.Write(_pci.Structure(2).Address, 0, 2);
        _pci.Device.Activation!.Host.SignalQueue(0);
        Assert.Equal(1UL, _pci.Read(_pci.Structure(3).Address, 1));
        Assert.Empty(_pci.Device.Calls);

        _pci.Device.Holds = false;
        Assert.Equal(0UL, Read(0x14, 1));
        Assert.Equal((0UL, 0xFFFFUL, 0UL), (Read(0x16, 2), Read(0x1A, 2), Read(0x1C, 2)));
    }

    /// <summary>For drivers that do not read: what they write after the end finds a device that was reset.</summary>
    [Fact]
    public void A_write_after_the_end_counts()
    {
        Write(0x14, 0, 1);
        Write(0x14, 1, 1);
        _pci.Device.Holds = false;
        Write(0x14, 1, 1);
        Assert.Equal(["stop 0", "stop 1", "stop 2", "reset"], _pci.Device.Calls);
        Assert.Equal(1UL, Read(0x14, 1));
    }

    [Fact]
    public void A_queue_reset_reads_one_until_its_queue_has_stopped()
    {
        Write(0x16, 1, 2);
        Write(0x3A, 1, 2);
        Assert.Equal([1], _pci.Device.Begun);
        Write(0x3A, 1, 2);
        Write(0x20, 0x5000, 4);
        Write(0x1A, 0, 2);
        Write(0x18, 4, 2);
        Assert.Equal((1UL, 1UL, 2UL, 0x1001UL, 64UL), (Read(0x3A, 2), Read(0x1C, 2), Read(0x1A, 2), Read(0x20, 4), Read(0x18, 2)));
        // The others are used as ever.
        Write(0x16, 2, 2);
        Assert.Equal((0UL, 1UL), (Read(0x3A, 2), Read(0x1C, 2)));
        Write(0x1A, 0, 2);
        Assert.Equal(0UL, Read(0x1A, 2));
        Assert.Empty(_pci.Device.Calls);
        _pci.Device.Holds = false;
        Write(0x16, 1, 2);
        Assert.Equal((0UL, 0UL, 0xFFFFUL), (Read(0x3A, 2), Read(0x1C, 2), Read(0x1A, 2)));
        Assert.Equal(["stop 1"], _pci.Device.Calls);
        Write(0x1C, 1, 2);
        Assert.Equal(["stop 1", "start 1"], _pci.Device.Calls);
        Assert.Equal((15UL, 0UL), (Read(0x14, 1), Read(0x3A, 2)));
    }

    [Fact]
    public void A_device_reset_takes_a_queue_reset_with_it()
    {
        Write(0x16, 1, 2);
        Write(0x3A, 1, 2);
        Write(0x14, 0, 1);
        Assert.Equal((15UL, 1UL), (Read(0x14, 1), Read(0x3A, 2)));
        _pci.Device.Holds = false;
        Assert.Equal(0UL, Read(0x14, 1));
        Assert.Equal(["stop 0", "stop 1", "stop 2", "reset"], _pci.Device.Calls);
        Write(0x16, 1, 2);
        Assert.Equal(0UL, Read(0x3A, 2));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Others_wait_and_complete_it(bool queueOnly)
    {
        void Begin()
        {
            _pci.Device.Holds = true;
            if (queueOnly)
            {
                Write(0x16, 1, 2);
                Write(0x3A, 1, 2);
            }
            else
            {
                Write(0x14, 0, 1);
            }
            Assert.Equal(15UL, Read(0x14, 1));
            _pci.Device.Calls.Clear();
        }

        // A stop waits until whoever serves the queue lets go of it.
        _pci.Device.Stopping = _ => _pci.Device.Holds = false;
        string[] all = ["stop 0", "stop 1", "stop 2", "reset"];

        Begin();
        _pci.Device.LetGoDuring(_pci.Pci.Pause);
        Assert.Equal(queueOnly ? all[..3] : all, _pci.Device.Calls);
        VirtioTransportState state = _pci.Pci.Save();
        Assert.Equal((queueOnly ? 15 : 0, false), (state.Status, state.Queues[1].Enabled));
        _pci.Pci.Resume();
        Assert.Equal(queueOnly ? [0, 2] : [], _pci.Device.Running.Keys.Order());
        Assert.Equal((queueOnly ? 15UL : 0, 0UL), (Read(0x14, 1), Read(0x3A, 2)));

        _pci.Start(VirtioFeatures.Version1 | VirtioFeatures.RingReset);
        Begin();
        _pci.PciBus.Reset();
        Assert.Equal(all, _pci.Device.Calls);
        _pci.Enable();
        Assert.Equal(0UL, Read(0x14, 1));

        // Bus mastering goes off, and stays off after the reset that it waited for.
        _pci.Start(VirtioFeatures.Version1 | VirtioFeatures.RingReset);
        Begin();
        _pci.SetConfig(0x04, 2, 2);
        Assert.Equal(queueOnly ? all[..3] : all, _pci.Device.Calls);
        Assert.Equal((queueOnly ? 15UL : 0, 0UL), (Read(0x14, 1), Read(0x3A, 2)));
        _pci.Pci.Pause();
        Assert.True(_pci.Pci.Save().IsSilenced);
        _pci.Pci.Resume();
        Assert.Empty(_pci.Device.Running);
        _pci.SetConfig(0x04, 6, 2);
        Assert.Equal(queueOnly ? [0, 2] : [], _pci.Device.Running.Keys.Order());

        _pci.Start(VirtioFeatures.Version1 | VirtioFeatures.RingReset);
        Begin();
        _pci.Pci.Dispose();
        Assert.Equal(queueOnly ? all[..3] : all, _pci.Device.Calls);
        Assert.True(_pci.Device.IsDisposed);
    }

    [Fact]
    public void All_are_asked_before_one_is_waited_for()
    {
        _pci.Device.Stopping = index =>
        {
            Assert.Equal(3 - index - 1, _pci.Device.Begun.Count);
            _pci.Device.Holds = false;
        };
        _pci.Device.LetGoDuring(_pci.Pci.Pause);
        _pci.Pci.Resume();
        _pci.PciBus.Reset();
        Assert.Empty(_pci.Device.Running);
    }

    [Fact]
    public void Bus_mastering_goes_off_without_a_wait_for_others_who_serve_the_queues()
    {
        using PciMachine pci = StartExternal();
        pci.SetConfig(0x04, 2, 2);
        Assert.Equal([0, 1, 2], pci.Device.Begun.Order());
        Assert.Empty(pci.Device.Calls);
        // Whatever the driver reads then finds that they have stopped.
        pci.Device.Holds = false;
        Assert.Equal(15UL, pci.Read(pci.Structure(1).Address + 0x14, 1));
        Assert.Equal(["stop 0", "stop 1", "stop 2"], pci.Device.Calls);
        pci.SetConfig(0x04, 6, 2);
        Assert.Equal([0, 1, 2], pci.Device.Running.Keys.Order());
    }

    [Fact]
    public void Bus_mastering_that_is_on_again_before_the_queues_have_stopped_starts_them_when_they_have()
    {
        using PciMachine pci = StartExternal();
        for (int i = 0; i < 3; i++)
        {
            pci.SetConfig(0x04, 2, 2);
            pci.SetConfig(0x04, 6, 2);
        }
        Assert.Empty(pci.Device.Calls);
        pci.Device.Holds = false;
        // By itself: the driver touches nothing.
        Assert.True(SpinWait.SpinUntil(() => pci.Pci.IsRunning && pci.Device.Starts == 6, s_watchdog));
        Assert.Equal(["stop 0", "start 0", "stop 1", "start 1", "stop 2", "start 2"], pci.Device.Calls);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Bus_mastering_that_goes_off_during_a_reset_is_off_after_it(bool on)
    {
        using PciMachine pci = StartExternal();
        ulong status = pci.Structure(1).Address + 0x14;
        pci.Write(status, 0, 1);
        pci.SetConfig(0x04, 2, 2);
        if (on)
            pci.SetConfig(0x04, 6, 2);
        Assert.Equal(15UL, pci.Read(status, 1));
        pci.Device.Holds = false;
        Assert.Equal(0UL, pci.Read(status, 1));
        Assert.Equal(["stop 0", "stop 1", "stop 2", "reset"], pci.Device.Calls);
        pci.Pci.Pause();
        Assert.Equal(!on, pci.Pci.Save().IsSilenced);
    }

    [Fact]
    public void A_pause_waits_for_queues_that_fall_silent()
    {
        using PciMachine pci = StartExternal();
        pci.SetConfig(0x04, 2, 2);
        pci.SetConfig(0x04, 6, 2);
        pci.Device.LetGoDuring(pci.Pci.Pause);
        Assert.Equal(["stop 0", "stop 1", "stop 2"], pci.Device.Calls);
        Assert.False(pci.Pci.Save().IsSilenced);
        pci.Pci.Resume();
        Assert.Equal([0, 1, 2], pci.Device.Running.Keys.Order());
    }

    [Fact]
    public void While_a_pause_waits_for_others_registers_are_read_and_nothing_starts_again()
    {
        using PciMachine pci = StartExternal();
        ulong status = pci.Structure(1).Address + 0x14;
        var pause = new Thread(pci.Pci.Pause);
        pause.Start();
        Assert.True(SpinWait.SpinUntil(() => pci.Device.StopsBegun == 3, s_watchdog));
        for (int i = 0; i < 100; i++)
            OtherThread.Run(() => Assert.Equal(15UL, pci.Read(status, 1)));
        OtherThread.Run(() => pci.SetConfig(0x04, 2, 2));
        OtherThread.Run(() => pci.SetConfig(0x04, 6, 2));
        Assert.False(pause.Join(50));
        pci.Device.Holds = false;
        Assert.True(pause.Join(s_watchdog));
        Assert.Empty(pci.Device.Running);
        Assert.Equal(15, pci.Pci.Save().Status);
        pci.Pci.Resume();
        Assert.Equal([0, 1, 2], pci.Device.Running.Keys.Order());
    }

    /// <summary>One whose queues others serve, who do not let go of them, and for whom no vCPU may wait.</summary>
    private PciMachine StartExternal()
    {
        var pci = new PciMachine(new FakeDevice { IsExternal = true }, relay: () => _loop);
        pci.Enable().Start(VirtioFeatures.Version1);
        pci.Device.Calls.Clear();
        pci.Device.Holds = true;
        pci.Device.Stopping = _ => Assert.False(pci.Device.Holds, "A vCPU would have waited.");
        return pci;
    }

    [Fact]
    public void Bus_mastering_that_was_off_is_off_in_a_restored_device()
    {
        _pci.Device.Holds = false;
        _pci.SetConfig(0x04, 2, 2);
        _pci.Pci.Pause();
        VirtioTransportState state = _pci.Pci.Save();
        Assert.True(state.IsSilenced);
        using var other = new PciMachine();
        other.Pci.Restore(state);
        other.Pci.Resume();
        Assert.Empty(other.Device.Running);
        other.SetConfig(0x04, 6, 2);
        Assert.Equal(3, other.Device.Running.Count);
    }

    [Fact]
    public void The_generation_is_of_both_and_stays_when_a_state_is_restored()
    {
        _pci.Device.Holds = false;
        ulong Generation(PciMachine machine) => machine.Read(machine.Structure(1).Address + 0x15, 1);
        ulong before = Generation(_pci);
        _pci.Device.Generation += 3;
        Assert.Equal(before + 3, Generation(_pci));
        _pci.Device.Activation!.Host.SignalConfigurationChange();
        Assert.Equal(before + 4, Generation(_pci));
        _pci.Pci.Pause();
        using var other = new PciMachine();
        other.Device.Generation = 200;
        other.Enable();
        other.Pci.Restore(_pci.Pci.Save());
        Assert.Equal(before + 4, Generation(other));
        other.Device.Generation++;
        Assert.Equal(before + 5, Generation(other));
    }

    [Fact]
    public void A_driver_that_is_ready_without_features_is_no_state()
    {
        _pci.Device.Holds = false;
        _pci.Pci.Pause();
        VirtioTransportState state = _pci.Pci.Save();
        using var other = new PciMachine();
        foreach (VirtioTransportState wrong in new[]
        {
            state with { Status = 7 }, state with { Status = 4 }, state with { DriverFeatures = 0 }, state with { HasUnknownFeatures = true },
        })
        {
            Assert.Throws<VmmException>(() => other.Pci.Restore(wrong));
        }
        other.Pci.Restore(state);
    }

    [Theory]
    [InlineData(0x070)]
    [InlineData(0x044)]
    public void On_mmio_the_write_waits_and_other_vcpus_do_not(ulong register)
    {
        var device = new FakeDevice { Holds = true };
        var mmio = StartMmio(device);
        mmio.Write32(0x030, 1);
        var writer = new Thread(() => mmio.Write32(register, 0));
        writer.Start();
        Assert.True(SpinWait.SpinUntil(() => device.StopsBegun == (register == 0x070 ? 3 : 1), s_watchdog));
        for (int i = 0; i < 100; i++)
        {
            OtherThread.Run(() =>
            {
                Assert.Equal((15u, 0x10u), (mmio.Read32(0x070), mmio.Read32(0x100) & 0xFF));
                Assert.Equal(1u, mmio.Read32(0x044));
                mmio.Write32(0x080, 0x7777);
                mmio.Write32(0x050, 1);
            });
        }
        // Dropped during a reset of the device.
        OtherThread.Run(() => mmio.Write32(0x030, 2));
        Assert.False(writer.Join(50));
        Assert.Equal(3, device.Running.Count);
        device.Holds = false;
        Assert.True(writer.Join(s_watchdog));
        mmio.Write32(0x030, 1);
        Assert.Equal(register == 0x070 ? [] : [0, 2], device.Running.Keys.Order());
        Assert.Equal((register == 0x070 ? 0u : 15u, 0u), (mmio.Read32(0x070), mmio.Read32(0x044)));
        mmio.Dispose();
    }

    [Fact]
    public void On_mmio_a_pause_ends_the_wait()
    {
        var device = new FakeDevice { Holds = true };
        using VirtioMmioTransport mmio = StartMmio(device);
        var writer = new Thread(() => mmio.Write32(0x070, 0));
        writer.Start();
        Assert.True(SpinWait.SpinUntil(() => device.StopsBegun == 3, s_watchdog));
        device.LetGoDuring(mmio.Pause);
        Assert.True(writer.Join(s_watchdog));
        Assert.Equal(0, mmio.Save().Status);
        mmio.Resume();
        Assert.Equal(0u, mmio.Read32(0x070));
    }

    [Fact]
    public void On_mmio_a_queue_reset_is_polled()
    {
        var device = new FakeDevice { Holds = true };
        using VirtioMmioTransport mmio = StartMmio(device);
        mmio.Write32(0x030, 1);
        mmio.Write32(0x0C0, 1);
        Assert.Equal((1u, 1u), (mmio.Read32(0x0C0), mmio.Read32(0x044)));
        device.Holds = false;
        Assert.Equal((0u, 0u), (mmio.Read32(0x0C0), mmio.Read32(0x044)));
        Assert.Equal([0, 2], device.Running.Keys.Order());
    }

    private static VirtioMmioTransport StartMmio(FakeDevice device)
    {
        var mmio = new VirtioMmioTransport(device, BusAccess.NoMemory, 0xC000_1000, [], new FakeTrigger(), new FakeDoorbells());
        foreach (uint status in new[] { 0u, 1u, 3u })
            mmio.Write32(0x070, status);
        mmio.Write32(0x024, 1);
        mmio.Write32(0x020, (uint)((VirtioFeatures.Version1 | VirtioFeatures.RingReset) >> 32));
        mmio.Write32(0x070, 11);
        for (uint queue = 0; queue < 3; queue++)
        {
            mmio.Write32(0x030, queue);
            mmio.Write32(0x044, 1);
        }
        mmio.Write32(0x070, 15);
        return mmio;
    }

    private IEnumerable<ulong> Registers()
    {
        for (int offset = 0; offset < 0x40; offset += 2)
            yield return Read(offset, 2);
    }

    private ulong Read(int offset, int width) => _pci.Read(_common + (ulong)offset, width);

    private void Write(int offset, ulong value, int width) => _pci.Write(_common + (ulong)offset, value, width);
}
