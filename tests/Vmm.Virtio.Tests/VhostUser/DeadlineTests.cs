using System.Diagnostics;
using Vmm.Core;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Protocol;
using BackEndOfTest = Vmm.VhostUserBackEnd.BackEnd;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>Back-ends of which each answer comes just in time: what they are asked for has a deadline as a whole, and the machine's end has one too.</summary>
public sealed class DeadlineTests
{
    private const int Queues = 16;

    [Fact]
    public void Answers_that_each_come_in_time_do_not_make_a_connection_that_never_begins()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1, 2, 3, 4] };
        foreach (FrontEndRequest request in (FrontEndRequest[])[FrontEndRequest.GET_FEATURES, FrontEndRequest.GET_PROTOCOL_FEATURES, FrontEndRequest.GET_QUEUE_NUM, FrontEndRequest.GET_MAX_MEM_SLOTS, FrontEndRequest.SET_BACKEND_REQ_FD, FrontEndRequest.GET_CONFIG])
            backEnd.Plan(request, Fault.Slow(600), times: int.MaxValue);
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 900, Operation = 500 } }, connect: false);
        VmmException error = Assert.Throws<VmmException>(fixture.Connect);
        Assert.Contains("it has 1400 ms to begin the connection", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Answers_that_each_come_in_time_do_not_make_a_start_that_never_ends()
    {
        var backEnd = new BackEndOfTest(new EchoDevice(Queues));
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Operation = 900 } });
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Slow(300), times: Queues);
        fixture.Driver.Start();
        fixture.WaitForLog("in time: it has 900 ms to start the device");
        Assert.InRange(backEnd.Transcript.Count(FrontEndRequest.SET_VRING_ENABLE), 1, 5);
        backEnd.ClearFaults();
        fixture.AssertServes(Queues - 1);
    }

    [Fact]
    public void Answers_that_each_come_in_time_do_not_make_a_stop_that_never_ends()
    {
        var backEnd = new BackEndOfTest(new EchoDevice(Queues));
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Stop = 900 } });
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Plan(FrontEndRequest.GET_VRING_BASE, Fault.Slow(400), times: Queues);
        var clock = Stopwatch.StartNew();
        // As a transport does.
        for (int i = 0; i < Queues; i++)
            fixture.Device.BeginStopQueue(i);
        fixture.Driver.Reset();
        // Sixteen of them would be 6.4 s.
        Assert.InRange(clock.ElapsedMilliseconds, 0, 4_000);
        fixture.WaitForLog("in time: it has 900 ms to stop the device's queues");
        backEnd.ClearFaults();
        fixture.Driver.Start();
        fixture.AssertServes(Queues - 1);
    }

    [Fact]
    public void A_driver_that_stops_one_queue_long_after_another_has_the_whole_time_for_each()
    {
        var backEnd = new BackEndOfTest(new EchoDevice(2));
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Stop = 900 } });
        fixture.Driver.Start();
        backEnd.Plan(FrontEndRequest.GET_VRING_BASE, Fault.Slow(600), times: 2);
        _ = fixture.Device.StopQueue(0);
        _ = fixture.Device.StopQueue(1);
        Assert.Equal(1, fixture.FrontEnd.Counters.Connects);
        Assert.Equal(0, fixture.FrontEnd.Counters.Losses);
    }

    [Fact]
    public void No_vcpu_waits_for_one_that_is_slow_however_often_it_resets_the_device()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1, 2, 3, 4] };
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 20_000, ConfigurationReads = 0 } });
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Driver.Reset();
        using var goesOn = new ManualResetEventSlim();
        PlannedFault held = backEnd.Plan(FrontEndRequest.GET_CONFIG, Fault.Before((_, _) => goesOn.Wait()));
        _ = backEnd.Session!.Channel!.ConfigChange();
        fixture.WaitFor(() => held.Applied > 0, "the worker to be held up");
        var vcpu = new Thread(() =>
        {
            for (int i = 0; i < 5_000; i++)
            {
                fixture.Device.Activate(new VirtioActivation(fixture.Driver.Features, fixture.Driver.Memory, fixture.Driver.Host));
                fixture.Device.QueuesStarted();
                fixture.Device.WriteConfiguration(0, [(byte)i]);
                fixture.Device.Reset();
            }
        });
        vcpu.Start();
        bool done = vcpu.Join(10_000);
        int before = backEnd.Transcript.Length;
        goesOn.Set();
        vcpu.Join();
        Assert.True(done, "It waits.");
        fixture.Driver.Start();
        fixture.AssertServes();
        // What was left for the worker was no more than the outcome.
        Assert.InRange(backEnd.Transcript.Count(FrontEndRequest.RESET_DEVICE), 1, 3);
        Assert.InRange(backEnd.Transcript.Length - before, 0, 300);
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void The_end_of_the_machine_does_not_wait_for_one_that_does_not_stop()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Stop = 60_000, End = 300 } });
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Plan(FrontEndRequest.GET_VRING_BASE, Fault.Silence);
        var clock = Stopwatch.StartNew();
        fixture.FrontEnd.BeginEnd();
        fixture.Driver.Reset();
        fixture.Device.Dispose();
        fixture.FrontEnd.Dispose();
        Assert.InRange(clock.ElapsedMilliseconds, 0, 20_000);
        // Nobody is looked for any more.
        Assert.Equal(1, fixture.FrontEnd.Counters.Connects);
        Assert.DoesNotContain(fixture.Log, line => line.Contains("reconnect=off", StringComparison.Ordinal));
    }

    [Fact]
    public void A_good_one_is_stopped_in_good_order_at_the_end()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.FrontEnd.BeginEnd();
        fixture.Driver.Reset();
        fixture.Device.Dispose();
        fixture.FrontEnd.Dispose();
        Assert.Equal(1, backEnd.Transcript.Count(FrontEndRequest.GET_VRING_BASE));
        Assert.Equal(2, backEnd.Transcript.Count(FrontEndRequest.REM_MEM_REG));
        Assert.Equal(0, fixture.FrontEnd.Counters.Losses);
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void One_that_comes_and_says_nothing_does_not_hold_up_the_end()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 60_000, End = 300 } });
        PlannedFault silent = backEnd.Plan(FrontEndRequest.GET_FEATURES, Fault.Silence);
        backEnd.Session!.Disconnect();
        fixture.WaitFor(() => silent.Applied > 0, "a connection that says nothing");
        var clock = Stopwatch.StartNew();
        fixture.FrontEnd.BeginEnd();
        fixture.Device.Dispose();
        fixture.FrontEnd.Dispose();
        Assert.InRange(clock.ElapsedMilliseconds, 0, 20_000);
    }

    [Fact]
    public void One_that_comes_and_says_nothing_does_not_hold_up_who_closes_it()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 60_000 } }, connect: false);
        var frontEnd = Vmm.Virtio.VhostUser.VhostUserBackEnd.Open(fixture.Settings, fixture.Log.Enqueue, 10_000);
        PlannedFault silent = backEnd.Plan(FrontEndRequest.GET_FEATURES, Fault.Silence);
        backEnd.Session!.Disconnect();
        fixture.WaitFor(() => silent.Applied > 0, "a connection that says nothing");
        var clock = Stopwatch.StartNew();
        frontEnd.Dispose();
        Assert.InRange(clock.ElapsedMilliseconds, 0, 20_000);
    }
}
