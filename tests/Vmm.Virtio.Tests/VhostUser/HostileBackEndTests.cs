using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Protocol;
using BackEndOfTest = Vmm.VhostUserBackEnd.BackEnd;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>Back-ends that do what the protocol permits to hold somebody up, and losses at moments when something is on its way.</summary>
public sealed class HostileBackEndTests
{
    [Fact]
    public void Eventfds_that_it_makes_blocking_hold_nobody_up()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        var stolen = new List<FileDescriptor>();
        foreach (FrontEndRequest request in (FrontEndRequest[])[FrontEndRequest.SET_VRING_ERR, FrontEndRequest.SET_VRING_CALL])
        {
            backEnd.Plan(request, Fault.Before((session, message) =>
            {
                var copy = new FileDescriptor(LibC.fcntl(message.Descriptors[0].Number, LibC.F_DUPFD_CLOEXEC, 0));
                stolen.Add(copy);
                // The flag is the file's, not the descriptor's.
                _ = LibC.fcntl(copy.Number, LibC.F_SETFL, LibC.O_RDWR);
            }));
        }
        fixture.Driver.Start();
        fixture.AssertServes();
        var reset = new Thread(() => fixture.Driver.Reset());
        reset.Start();
        bool done = reset.Join(10_000);
        foreach (FileDescriptor file in stolen)
        {
            Signal(file);
            file.Dispose();
        }
        Assert.True(done, "The reset waits for ever.");
        Assert.Equal(2, stolen.Count);
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    [Fact]
    public void A_refusal_to_start_that_it_refuses_to_undo_is_told_to_the_driver()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Nack(), times: int.MaxValue);
        fixture.Driver.Start();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
        Assert.Contains("refused SET_VRING_ENABLE", fixture.Driver.Host.ResetReasons[0], StringComparison.Ordinal);
        // Nobody knows what it serves.
        fixture.WaitForLog("lost its back-end");
        backEnd.ClearFaults();
        fixture.Driver.Host.ForgetResets();
        fixture.Driver.Reset();
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    [Fact]
    public void One_that_always_ends_at_once_is_taken_less_and_less_often()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Close, times: int.MaxValue);
        fixture.Driver.Start();
        Thread.Sleep(1_500);
        Assert.InRange(fixture.FrontEnd.Counters.Connects, 2, 20);
        backEnd.ClearFaults();
        fixture.AssertServes();
    }

    [Fact]
    public void Errors_on_a_queue_are_counted_and_told_once()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        FileDescriptor? errors = null;
        backEnd.Plan(FrontEndRequest.SET_VRING_ERR, Fault.Before((_, message) =>
            errors = new FileDescriptor(LibC.fcntl(message.Descriptors[0].Number, LibC.F_DUPFD_CLOEXEC, 0))));
        fixture.Driver.Start();
        fixture.AssertServes();
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (fixture.FrontEnd.Counters.RingErrors < 3)
        {
            Assert.InRange(clock.ElapsedMilliseconds, 0, 20_000);
            Signal(errors!);
        }
        // Whatever it does, it does not keep the worker at nothing else.
        Assert.InRange(fixture.FrontEnd.Counters.RingErrors, 3, 3 + (clock.ElapsedMilliseconds / 20));
        Assert.Equal(1, fixture.Log.Count(line => line.Contains("reports an error", StringComparison.Ordinal)));
        errors!.Dispose();
        fixture.AssertServes();
    }

    [Fact]
    public void What_a_driver_writes_while_nobody_is_there_is_told_to_the_next_one()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1, 2, 3, 4] };
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Server.Dispose();
        fixture.WaitForLog("lost its back-end");
        fixture.Device.WriteConfiguration(1, [0xAA]);
        fixture.RestartBackEnd();
        fixture.WaitFor(() => backEnd.Config[1] == 0xAA, "the write to be passed on");
        fixture.AssertServes();
        Assert.Equal([1, 0xAA, 3, 4], fixture.Driver.Configuration(0, 4));
    }

    [Fact]
    public void What_a_driver_writes_while_the_space_is_read_is_not_lost()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1, 2, 3, 4] };
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        // Its answer is of before the write, which waits for the answer to be taken.
        backEnd.Plan(FrontEndRequest.GET_CONFIG, Fault.Before((_, _) => fixture.Device.WriteConfiguration(1, [0xAA])));
        backEnd.Config = [1, 2, 9, 9];
        _ = backEnd.Session!.Channel!.ConfigChange();
        fixture.WaitFor(() => backEnd.Transcript.Count(FrontEndRequest.SET_CONFIG) > 0, "the write to be passed on");
        fixture.AssertServes();
        Assert.Equal([1, 0xAA, 9, 9], backEnd.Config);
        Assert.Equal([1, 0xAA, 9, 9], fixture.Driver.Configuration(0, 4));
    }

    [Fact]
    public void A_state_that_comes_too_slowly_is_an_error_in_the_end()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Stop = 500 } });
        bool stop = false;
        Thread? writer = null;
        backEnd.Plan(FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Act((session, message) =>
        {
            FileDescriptor pipe = message.TakeDescriptor()!;
            writer = new Thread(() =>
            {
                using (pipe)
                {
                    for (int i = 0; i < 100 && !Volatile.Read(ref stop); i++)
                    {
                        Write(pipe, 1);
                        Thread.Sleep(100);
                    }
                }
            });
            writer.Start();
            session.Connection.Reply(message.Request, 0x100);
        }));
        var clock = System.Diagnostics.Stopwatch.StartNew();
        Assert.Throws<VmmException>(() => fixture.FrontEnd.SaveState());
        Volatile.Write(ref stop, true);
        writer!.Join();
        Assert.InRange(clock.ElapsedMilliseconds, 0, 5_000);
    }

    [Fact]
    public void A_state_does_not_come_out_of_a_file()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        backEnd.Plan(FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Act((session, message) =>
        {
            // A file of a file system in user space lets a reader wait for ever; this one stands for it.
            using var file = new FileDescriptor(LibC.memfd_create("state", LibC.MFD_CLOEXEC));
            session.Connection.Reply(message.Request, BitConverter.GetBytes(0UL), file.Number);
        }));
        VmmException error = Assert.Throws<VmmException>(() => fixture.FrontEnd.SaveState());
        Assert.Contains("pipe", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Features_that_the_next_one_lacks_are_offered_no_more()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        const ulong feature = VirtioFeatures.IndirectDescriptors;
        Assert.NotEqual(0UL, fixture.Device.OfferedFeatures & feature);
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Equal(0UL, fixture.Driver.Features & feature);
        ulong all = backEnd.Features;
        backEnd.Features &= ~feature;
        backEnd.Session!.Disconnect();
        fixture.WaitForLog("there again");
        fixture.AssertServes();
        Assert.Equal(0UL, fixture.Device.OfferedFeatures & feature);
        backEnd.Features = all;
        backEnd.Session!.Disconnect();
        fixture.WaitFor(() => (fixture.Device.OfferedFeatures & feature) != 0, "the feature to be offered again");
        // What the driver before the reset did not use, the next one may.
        fixture.Driver.Reset();
        backEnd.Features &= ~feature;
        fixture.WaitFor(() => backEnd.Transcript.Count(FrontEndRequest.RESET_DEVICE) > 0, "RESET_DEVICE");
        backEnd.Session!.Disconnect();
        fixture.WaitForLog("it lacks the features");
        backEnd.Features = all;
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    [Fact]
    public void Without_reconnecting_a_driver_that_starts_it_again_is_told_that_nobody_is_there()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()), settings => settings with { Reconnect = null });
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.BackEnd.Session!.Disconnect();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
        fixture.Driver.Reset();
        fixture.Driver.Host.ForgetResets();
        fixture.Driver.Start();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
    }

    [Fact]
    public void A_log_is_out_of_use_also_where_the_back_end_does_not_stop_logging()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        using (var log = new Vmm.Virtio.VhostUser.DirtyLog(fixture.Driver.Memory))
        {
            fixture.FrontEnd.StartLogging(log);
            backEnd.Plan(FrontEndRequest.SET_FEATURES, Fault.Close);
            fixture.FrontEnd.StopLogging();
        }
        fixture.AssertServes();
        Assert.Equal(2, fixture.FrontEnd.Counters.Connects);
        Assert.DoesNotContain(fixture.Log, line => line.Contains("defect", StringComparison.Ordinal));
    }

    [Fact]
    public void One_that_does_not_let_go_of_memory_is_let_go_of()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.Driver.Stop();
        backEnd.Plan(FrontEndRequest.REM_MEM_REG, Fault.Nack());
        fixture.Device.Dispose();
        fixture.WaitForLog("lost its back-end");
        using var device = new Vmm.Virtio.VhostUser.VhostUserDevice(fixture.FrontEnd, fixture.Slots, Vmm.Virtio.SharedMemory.SharedMemoryQuota.ForMachine().ForDevice());
        using var driver = new Driver.GuestDriver(device, Driver.RingFeatures.Of(0));
        driver.Start();
        Assert.Equal([9], driver.Queues[0].Transact([9], writable: 1));
        driver.Stop();
    }

    private static void Signal(FileDescriptor file) => Write(file, sizeof(ulong));

    private static unsafe void Write(FileDescriptor file, int count)
    {
        ulong one = 1;
        _ = LibC.write(file.Number, &one, (nuint)count);
    }
}
