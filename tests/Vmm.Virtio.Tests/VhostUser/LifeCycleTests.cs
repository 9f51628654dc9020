using Vmm.Core;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.Virtio.Queues;
using BackEndOfTest = Vmm.VhostUserBackEnd.BackEnd;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>What is said to a back-end, when, and in which order; and what becomes of a device whose back-end goes.</summary>
public sealed class LifeCycleTests
{
    [Fact]
    public void Connecting_and_starting_come_in_the_order_of_the_specification()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice(2)) { Config = [1, 2, 3, 4] });
        Assert.Equal(
            ["GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES", "SET_OWNER", "GET_QUEUE_NUM", "GET_MAX_MEM_SLOTS", "SET_BACKEND_REQ_FD", "GET_CONFIG"],
            fixture.BackEnd.Transcript.Names);
        fixture.BackEnd.Transcript.Clear();
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.AssertServes(1);
        string[] ring = ["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_ERR", "SET_VRING_CALL", "SET_VRING_KICK"];
        Assert.Equal(
            ["SET_FEATURES", "ADD_MEM_REG", "ADD_MEM_REG", "GET_INFLIGHT_FD", "SET_INFLIGHT_FD", .. ring, .. ring, "SET_VRING_ENABLE", "SET_VRING_ENABLE"],
            fixture.BackEnd.Transcript.Names);
        fixture.BackEnd.Transcript.Clear();
        fixture.Driver.Reset();
        fixture.WaitFor(() => fixture.BackEnd.Transcript.Count(FrontEndRequest.RESET_DEVICE) > 0, "RESET_DEVICE");
        Assert.Equal(["SET_VRING_ENABLE", "GET_VRING_BASE", "SET_VRING_ENABLE", "GET_VRING_BASE", "RESET_DEVICE"], fixture.BackEnd.Transcript.Names);
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Empty(fixture.BackEnd.Violations);
    }

    [Theory]
    [InlineData(~0UL)]
    [InlineData((ulong)(BackEndOfTest.DefaultProtocolFeatures & ~(ProtocolFeatures.CONFIGURE_MEM_SLOTS | ProtocolFeatures.REPLY_ACK)))]
    [InlineData((ulong)(BackEndOfTest.DefaultProtocolFeatures & ~(ProtocolFeatures.BACKEND_REQ | ProtocolFeatures.MQ | ProtocolFeatures.INFLIGHT_SHMFD)))]
    [InlineData(0UL)]
    public void Any_part_of_the_protocol_may_be_missing_and_what_is_not_implemented_is_not_accepted(ulong offered)
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { ProtocolFeatures = (ProtocolFeatures)offered };
        using var fixture = new FrontEndFixture(backEnd);
        const ProtocolFeatures implemented = BackEndOfTest.DefaultProtocolFeatures | ProtocolFeatures.SHMEM;
        ProtocolFeatures expected = (ProtocolFeatures)offered & implemented;
        // Descriptors come by a channel that is not there.
        if ((expected & ProtocolFeatures.BACKEND_REQ) == 0)
            expected &= ~(ProtocolFeatures.BACKEND_SEND_FD | ProtocolFeatures.SHMEM);
        Assert.Equal(expected & ~ProtocolFeatures.CONFIG, backEnd.Session!.AckedProtocolFeatures & ~ProtocolFeatures.CONFIG);
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Driver.Restart();
        fixture.AssertServes();
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void Without_protocol_features_rings_run_without_being_enabled()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        backEnd.Features &= ~(1UL << 30);
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.DoesNotContain("SET_VRING_ENABLE", backEnd.Transcript.Names);
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void A_guest_is_not_offered_what_is_between_the_two_programs()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        backEnd.Features = ~0UL;
        using var fixture = new FrontEndFixture(backEnd);
        foreach (int bit in (int[])[24, 26, 27, 30, 33, 36, 37, 38, 39, 41])
            Assert.Equal(0UL, fixture.Device.OfferedFeatures & (1UL << bit));
        Assert.NotEqual(0UL, fixture.Device.OfferedFeatures & VirtioFeatures.Version1);
    }

    [Fact]
    public void A_queue_that_is_stopped_goes_on_where_it_stood()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()));
        fixture.Driver.Start();
        for (int i = 0; i < 5; i++)
            fixture.AssertServes();
        VirtQueueState[] states = fixture.Driver.Stop();
        Assert.Equal(5, states[0].NextAvailable);
        Assert.Equal(states[0], fixture.Device.StopQueue(0));
        fixture.Device.StartQueue(default);
        fixture.Driver.Restart();
        fixture.AssertServes();
    }

    [Fact]
    public void As_a_server_it_takes_whoever_connects()
    {
        string socket = Path.Combine(Path.GetTempPath(), $"vmm-{Guid.NewGuid():N}");
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()), settings => settings with { Server = true, Socket = socket });
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.BackEnd.Session!.Disconnect();
        fixture.WaitForLog("a back-end is there again");
        fixture.AssertServes();
    }

    [Fact]
    public void What_is_made_available_while_nobody_is_there_is_served_by_the_next_one()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()));
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Server.Dispose();
        fixture.WaitForLog("lost its back-end");
        int token = fixture.Driver.Queues[0].Add([7, 8], writable: 2);
        Assert.True(token >= 0);
        fixture.Driver.Queues[0].Kick();
        fixture.RestartBackEnd();
        Assert.Equal([7, 8], fixture.WaitUsed());
        fixture.AssertServes();
        Assert.Equal(2, fixture.FrontEnd.Counters.Connects);
        Assert.False(fixture.Driver.Host.IsResetNeeded);
        Assert.Empty(fixture.BackEnd.Violations);
    }

    [Fact]
    public void Requests_that_one_left_in_flight_are_done_by_the_next_one()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        int taken = 0;
        backEnd.Handler = (_, _, _) =>
        {
            Interlocked.Increment(ref taken);
            return DeviceModelResult.KeepForEver;
        };
        for (byte i = 0; i < 4; i++)
            fixture.Driver.Queues[0].Add([i], writable: 1);
        fixture.Driver.Queues[0].Kick();
        fixture.WaitFor(() => Volatile.Read(ref taken) == 4, "the requests to be taken");
        backEnd.Session!.Disconnect();
        backEnd.Handler = null;
        var answers = new SortedSet<byte>();
        for (int i = 0; i < 4; i++)
            answers.Add(fixture.WaitUsed()[0]);
        Assert.Equal([0, 1, 2, 3], answers);
        Assert.Equal(4, backEnd.Resubmitted);
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void A_guest_that_resets_its_device_while_nobody_is_there_does_not_wait()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()));
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Server.Dispose();
        fixture.WaitForLog("lost its back-end");
        for (int i = 0; i < 1000; i++)
        {
            fixture.Driver.Reset();
            fixture.Driver.Start();
        }
        fixture.RestartBackEnd();
        fixture.AssertServes();
    }

    [Fact]
    public void With_reconnect_off_the_device_is_broken_for_good()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()), settings => settings with { Reconnect = null });
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.BackEnd.Session!.Disconnect();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
        fixture.WaitForLog("reconnect=off");
        fixture.Driver.Reset();
        fixture.Driver.Start();
        Assert.Equal(1, fixture.FrontEnd.Counters.Connects);
    }

    [Fact]
    public void Another_back_end_that_cannot_take_the_place_is_refused_until_one_comes_that_can()
    {
        var backEnd = new BackEndOfTest(new EchoDevice(2)) { Config = [1, 2] };
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        ulong features = backEnd.Features;
        backEnd.Features &= ~VirtioFeatures.Version1;
        backEnd.Session!.Disconnect();
        fixture.WaitForLog("cannot be used: it offers a legacy device only");
        backEnd.Features = features;
        backEnd.QueueCount = 1;
        fixture.WaitForLog("cannot be used: it has 1 queues");
        backEnd.QueueCount = 2;
        ProtocolFeatures all = backEnd.ProtocolFeatures;
        backEnd.ProtocolFeatures &= ~ProtocolFeatures.INFLIGHT_SHMFD;
        fixture.WaitForLog("cannot be used: it lacks the protocol features INFLIGHT_SHMFD");
        backEnd.ProtocolFeatures = all;
        fixture.AssertServes();
        Assert.True(fixture.FrontEnd.Counters.RefusedBackEnds >= 3);
    }

    [Fact]
    public void Another_back_end_that_can_do_more_is_used_as_the_first_one_was()
    {
        var backEnd = new BackEndOfTest(new ShmemDevice([1 << 20]));
        ProtocolFeatures all = backEnd.ProtocolFeatures;
        backEnd.ProtocolFeatures &= ~(ProtocolFeatures.SHMEM | ProtocolFeatures.INFLIGHT_SHMFD | ProtocolFeatures.REPLY_ACK | ProtocolFeatures.RESET_DEVICE);
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        ProtocolFeatures first = backEnd.Session!.AckedProtocolFeatures;
        backEnd.ProtocolFeatures = all;
        backEnd.Session.Disconnect();
        fixture.WaitForLog("a back-end is there again");
        fixture.AssertServes();
        Assert.Equal(first, backEnd.Session.AckedProtocolFeatures);
        Assert.Equal(0, backEnd.Transcript.Count(FrontEndRequest.GET_SHMEM_CONFIG));
        Assert.Equal(0, fixture.FrontEnd.Counters.RefusedBackEnds);
        Assert.Empty(backEnd.Violations);
    }

    [Theory]
    [InlineData(26)]
    [InlineData(30)]
    public void Another_back_end_without_a_feature_between_the_two_programs_is_refused(int bit)
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { ProtocolFeatures = 0 };
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Features &= ~(1UL << bit);
        backEnd.Session!.Disconnect();
        fixture.WaitForLog($"it lacks the features 0x{1UL << bit:x}");
        backEnd.Features |= 1UL << bit;
        fixture.AssertServes();
    }

    [Fact]
    public void The_device_of_another_life_of_the_machine_has_the_same_back_end_and_other_memory()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()));
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Driver.Stop();
        fixture.Device.Dispose();
        Assert.Equal(2, fixture.BackEnd.Transcript.Count(FrontEndRequest.REM_MEM_REG));
        using var device = new Vmm.Virtio.VhostUser.VhostUserDevice(fixture.FrontEnd, fixture.Slots, Vmm.Virtio.SharedMemory.SharedMemoryQuota.ForMachine().ForDevice());
        using var driver = new Driver.GuestDriver(device, Driver.RingFeatures.Of(0));
        driver.Start();
        Assert.Equal([9], driver.Queues[0].Transact([9], writable: 1));
        driver.Stop();
        Assert.Equal(1, fixture.FrontEnd.Counters.Connects);
        Assert.Empty(fixture.BackEnd.Violations);
    }

    [Fact]
    public void Rings_outside_of_memory_cost_the_device_only()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()));
        using var doorbell = new Core.Events.EventNotifier(isShared: true);
        fixture.Device.Activate(new VirtioActivation(fixture.Driver.Features, fixture.Driver.Memory, fixture.Driver.Host));
        fixture.Device.StartQueue(new VirtQueueSetup(0, 128, ulong.MaxValue - 4, 0x7000_0000_0000, 0, VirtQueueState.Initial, doorbell) { Call = doorbell });
        fixture.Device.QueuesStarted();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
        fixture.Driver.Host.ForgetResets();
        fixture.Driver.Reset();
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    [Fact]
    public void The_configuration_space_is_read_from_a_copy_and_follows_the_back_end()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1, 2, 3, 4, 5, 6, 7, 8] };
        using var fixture = new FrontEndFixture(backEnd);
        Assert.Equal([1, 2, 3, 4, 5, 6, 7, 8], fixture.Driver.Configuration(0, 8));
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Config = [1, 2, 3, 4, 9, 9, 9, 9];
        Assert.True(backEnd.Session!.Channel!.ConfigChange(needReply: true).IsSuccess);
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.ConfigurationChanges > 0);
        Assert.Equal([1, 2, 3, 4, 9, 9, 9, 9], fixture.Driver.Configuration(0, 8));
        fixture.Device.WriteConfiguration(1, [0xAA, 0xBB]);
        fixture.WaitFor(() => backEnd.Config[2] == 0xBB, "the write to be passed on");
        Assert.Equal([1, 0xAA, 0xBB, 4, 9, 9, 9, 9], backEnd.Config);
        fixture.Server.Dispose();
        fixture.WaitForLog("lost its back-end");
        Assert.Equal([1, 0xAA, 0xBB, 4], fixture.Driver.Configuration(0, 4));
    }

    [Fact]
    public void A_flood_of_changes_is_a_few_reads()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1] };
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        int before = backEnd.Transcript.Count(FrontEndRequest.GET_CONFIG);
        var clock = System.Diagnostics.Stopwatch.StartNew();
        for (int i = 0; i < 20_000; i++)
            _ = backEnd.Session!.Channel!.ConfigChange();
        Assert.True(backEnd.Session!.Channel!.ConfigChange(needReply: true).IsSuccess);
        long most = 3 + (clock.ElapsedMilliseconds / 20);
        Assert.InRange(backEnd.Transcript.Count(FrontEndRequest.GET_CONFIG) - before, 0, most);
        fixture.AssertServes();
    }

    [Fact]
    public void A_state_goes_out_and_comes_back_also_one_that_fills_the_pipe()
    {
        byte[] state = new byte[3 << 20];
        new Random(1).NextBytes(state);
        var backEnd = new BackEndOfTest(new EchoDevice()) { StateToSave = state };
        using var fixture = new FrontEndFixture(backEnd);
        VirtioDeviceState saved = fixture.Device.Save();
        fixture.Device.Restore(saved);
        Assert.Equal(state, backEnd.LoadedState);
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    [Fact]
    public void A_network_card_is_told_its_mtu_and_announces_itself_where_it_was_moved_to()
    {
        var backEnd = new BackEndOfTest(new EchoDevice(2)) { StateToSave = [1], QueueCount = 1 };
        backEnd.ProtocolFeatures |= ProtocolFeatures.RARP | ProtocolFeatures.NET_MTU;
        using var fixture = new FrontEndFixture(backEnd, settings => settings with
        {
            Type = VirtioDeviceType.Network,
            Configuration = [0x52, 1, 2, 3, 4, 5, 1, 0, 1, 0, 0, 0],
            ConfigurationLength = 0,
            Mtu = 9000,
        });
        Assert.Equal(9000UL, BitConverter.ToUInt64(Assert.Single(backEnd.Transcript.Requests(FrontEndRequest.NET_SET_MTU)).Payload));
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Equal(0, backEnd.Transcript.Count(FrontEndRequest.SEND_RARP));
        fixture.Driver.Reset();
        fixture.FrontEnd.LoadState([1]);
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Driver.Restart();
        fixture.AssertServes();
        Assert.Equal([0x52, 1, 2, 3, 4, 5, 0, 0], Assert.Single(backEnd.Transcript.Requests(FrontEndRequest.SEND_RARP)).Payload);
        Assert.Empty(backEnd.Violations);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Bit_21_is_shared_memory_only_where_it_is_said_to_be(bool quirk)
    {
        var backEnd = new BackEndOfTest(new ShmemDevice([1 << 20]));
        backEnd.ProtocolFeatures = (backEnd.ProtocolFeatures & ~ProtocolFeatures.SHMEM) | (ProtocolFeatures)(1UL << 21);
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { SharedMemoryIsBit21 = quirk });
        Assert.Equal(quirk ? 1 : 0, fixture.Device.SharedMemory.Count);
        Assert.Equal(quirk, ((ulong)backEnd.Session!.AckedProtocolFeatures & (1UL << 21)) != 0);
        Assert.Equal(quirk ? 1 : 0, backEnd.Transcript.Count(FrontEndRequest.GET_SHMEM_CONFIG));
    }

    [Fact]
    public void A_back_end_without_state_saves_none()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        backEnd.ProtocolFeatures &= ~ProtocolFeatures.DEVICE_STATE;
        using var fixture = new FrontEndFixture(backEnd);
        Assert.Null(fixture.FrontEnd.SaveState());
        fixture.FrontEnd.LoadState(null);
        Assert.Throws<VmmException>(() => fixture.FrontEnd.LoadState([1]));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_machine_with_mappings_that_nobody_could_make_again_is_not_saved(bool hasState)
    {
        var backEnd = new BackEndOfTest(new ShmemDevice([1 << 20])) { StateToSave = [7] };
        if (!hasState)
            backEnd.ProtocolFeatures &= ~ProtocolFeatures.DEVICE_STATE;
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Window(0).Place(1UL << 40);
        fixture.Driver.Start();
        fixture.AssertServes();
        using var file = new Core.Interop.FileDescriptor(Core.Interop.LibC.memfd_create("mapped", Core.Interop.LibC.MFD_CLOEXEC));
        Assert.Equal(0, Core.Interop.LibC.ftruncate(file.Number, 8192));
        var mapping = new ShmemMapping(0, 0, 4096, 4096, 0);
        Assert.True(backEnd.Session!.Channel!.Map(mapping, file.Number).IsSuccess);
        fixture.Driver.Stop();
        if (hasState)
        {
            // It makes them again by what it saved.
            Assert.Equal([7], ((Vmm.Virtio.VhostUser.VhostUserState)fixture.Device.Save()).BackEnd);
            return;
        }
        VmmException error = Assert.Throws<VmmException>(() => fixture.Device.Save());
        Assert.Contains("Cannot save the state of vu0: its back-end has 1 mapping in", error.Message, StringComparison.Ordinal);
        Assert.Contains("DEVICE_STATE", error.Message, StringComparison.Ordinal);
        fixture.Driver.Restart();
        // It may not map before it serves.
        fixture.AssertServes();
        Assert.True(backEnd.Session.Channel.Unmap(mapping).IsSuccess);
        fixture.Driver.Stop();
        Assert.Null(((Vmm.Virtio.VhostUser.VhostUserState)fixture.Device.Save()).BackEnd);
    }

    public static TheoryData<string> StateFaults => ["refused", "check", "silent", "no-descriptor", "closes"];

    [Theory]
    [MemberData(nameof(StateFaults))]
    public void A_state_that_cannot_be_had_is_an_error_and_the_device_goes_on(string what)
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { StateToSave = [1, 2, 3] };
        using var fixture = new FrontEndFixture(backEnd);
        (FrontEndRequest request, Fault fault) = what switch
        {
            "refused" => (FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Nack()),
            "check" => (FrontEndRequest.CHECK_DEVICE_STATE, Fault.Nack()),
            "silent" => (FrontEndRequest.CHECK_DEVICE_STATE, Fault.Silence),
            "no-descriptor" => (FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Answer(0)),
            _ => (FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Close),
        };
        backEnd.Plan(request, fault);
        VmmException error = Assert.Throws<VmmException>(() => fixture.FrontEnd.SaveState());
        Assert.Contains("vu0", error.Message, StringComparison.Ordinal);
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Equal([1, 2, 3], fixture.FrontEnd.SaveState());
    }

    [Fact]
    public void A_log_is_told_behind_the_memory_and_before_a_queue_is_served()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        using var log = new Vmm.Virtio.VhostUser.DirtyLog(fixture.Driver.Memory);
        fixture.FrontEnd.StartLogging(log);
        AssertOrder(() => fixture.Driver.Start());
        // Nothing of it has changed.
        backEnd.Transcript.Clear();
        fixture.Driver.Restart();
        fixture.AssertServes();
        Assert.Equal(0, backEnd.Transcript.Count(FrontEndRequest.SET_LOG_BASE));
        // Another back-end is told all of it.
        AssertOrder(() =>
        {
            backEnd.Session!.Disconnect();
            fixture.WaitForLog("there again");
        });
        fixture.FrontEnd.StopLogging();
        Assert.Empty(backEnd.Violations);

        void AssertOrder(Action start)
        {
            backEnd.Transcript.Clear();
            start();
            fixture.AssertServes();
            List<string> names = [.. backEnd.Transcript.Names];
            Assert.Equal(1, backEnd.Transcript.Count(FrontEndRequest.SET_LOG_BASE));
            Assert.InRange(names.IndexOf("SET_LOG_BASE"), names.LastIndexOf("ADD_MEM_REG") + 1, names.IndexOf("SET_VRING_KICK") - 1);
        }
    }

    [Fact]
    public void A_log_of_another_memory_is_told_to_nobody()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        using Core.Memory.GuestRam small = Core.Memory.GuestRam.Allocate([(0, 1 << 20)], new Core.Memory.GuestRamOptions());
        using var log = new Vmm.Virtio.VhostUser.DirtyLog(small.Memory);
        VmmException error = Assert.Throws<VmmException>(() => fixture.FrontEnd.StartLogging(log));
        Assert.Contains("smaller memory", error.Message, StringComparison.Ordinal);
        Assert.Equal(0, backEnd.Transcript.Count(FrontEndRequest.SET_LOG_BASE));
        fixture.AssertServes();
    }

    [Fact]
    public void Pages_that_the_back_end_writes_are_in_the_log_while_it_is_on()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()));
        fixture.Driver.Start();
        fixture.AssertServes();
        using var log = new Vmm.Virtio.VhostUser.DirtyLog(fixture.Driver.Memory);
        fixture.FrontEnd.StartLogging(log);
        ulong page = fixture.Driver.Arena.Allocate(4096);
        fixture.Driver.Queues[0].Add([new(page, 8), new(page + 8, 8, Writable: true)]);
        fixture.Driver.Queues[0].Kick();
        fixture.Driver.Queues[0].WaitUsed();
        // A page is noted after it is written: all are once the queue has stopped.
        VirtQueueState[] states = fixture.Driver.Stop();
        Assert.Equal(2, states[0].NextAvailable);
        var dirty = new List<ulong>();
        log.Take(dirty.Add);
        Assert.Contains(page, dirty);
        Assert.Contains(fixture.Driver.Queues[0].DeviceArea & ~0xFFFUL, dirty);
        dirty.Clear();
        log.Take(dirty.Add);
        Assert.Empty(dirty);
        fixture.FrontEnd.StopLogging();
        fixture.Driver.Restart();
        fixture.AssertServes();
        log.Take(dirty.Add);
        Assert.Empty(dirty);
        Assert.Empty(fixture.BackEnd.Violations);
    }
}
