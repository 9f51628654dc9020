using System.Buffers.Binary;
using Vmm.Core;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Tests.Devices;
using Vmm.Virtio.Tests.Driver;
using Vmm.Virtio.VhostUser;
using BackEndOfTest = Vmm.VhostUserBackEnd.BackEnd;
using EchoDevice = Vmm.VhostUserBackEnd.EchoDevice;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>A network card with several pairs of queues, whose control queue this side serves for its back-end.</summary>
public sealed class NetControlQueueTests
{
    private const int Pairs = 3;
    private const int Control = 2 * Pairs;
    private const byte Ok = 0, Error = 1;
    private static readonly byte[] s_mac = [0x52, 0x54, 0, 1, 2, 3];

    [Fact]
    public void One_pair_is_in_use_until_the_driver_asks_for_more()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        Assert.Equal(Pairs, (int)fixture.Driver.ConfigurationField(8, 2));
        Assert.Equal(Control + 1, fixture.Device.QueueSizes.Count);
        fixture.Driver.Start();
        fixture.AssertServes(0);
        fixture.AssertServes(1);
        Assert.Equal([true, true, false, false, false, false], Enabled(backEnd));
        // What is made available before is not lost.
        Assert.True(fixture.Driver.Queues[2].Add([7], writable: 1) >= 0);
        fixture.Driver.Queues[2].Kick();
        Assert.Equal(Ok, SetPairs(fixture, 3));
        // Done when it is answered.
        Assert.Equal([true, true, true, true, true, true], Enabled(backEnd));
        Assert.Equal([7], fixture.WaitUsed(2));
        for (int queue = 0; queue < Control; queue++)
            fixture.AssertServes(queue);
        Assert.Equal(Ok, SetPairs(fixture, 2));
        Assert.Equal([true, true, true, true, false, false], Enabled(backEnd));
        Assert.Equal(Ok, SetPairs(fixture, 2));
        Assert.Equal(2 + 4 + 2, backEnd.Transcript.Count(FrontEndRequest.SET_VRING_ENABLE));
        Assert.Empty(backEnd.Violations);
        // No ring of the back-end's.
        Assert.DoesNotContain(backEnd.Transcript.Requests(FrontEndRequest.SET_VRING_NUM), entry => entry.Payload[0] == Control);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    public void Each_layout_of_rings_has_a_control_queue(int rings)
    {
        using FrontEndFixture fixture = Make(out _);
        using var driver = new GuestDriver(fixture.Device, RingFeatures.Of(rings) with { Packed = false, InOrder = false }, ~VirtioFeatures.AllQueues);
        driver.Start();
        for (int i = 0; i < 300; i++)
            Assert.Equal([Ok], driver.Queues[Control].Transact([4, 0, (byte)((i % Pairs) + 1), 0], writable: 1));
        driver.Stop();
    }

    [Fact]
    public void A_reset_brings_back_one_pair_and_the_address()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        Assert.Equal(Ok, SetPairs(fixture, 3));
        byte[] other = [2, 0, 0, 0, 0, 9];
        Assert.Equal(Ok, Command(fixture, [1, 1, .. other]));
        Assert.Equal(other, fixture.Driver.Configuration(0, 6));
        fixture.Driver.Reset();
        fixture.Driver.Start();
        // The last that is enabled.
        fixture.AssertServes(1);
        Assert.Equal(s_mac, fixture.Driver.Configuration(0, 6));
        Assert.Equal([true, true, false, false, false, false], Enabled(backEnd));
        Assert.Equal(0, fixture.Driver.Host.ConfigurationChanges);
    }

    [Fact]
    public void Stopping_and_starting_the_queues_keeps_what_is_in_use()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        Assert.Equal(Ok, SetPairs(fixture, 2));
        fixture.Driver.Restart();
        Assert.Equal(Ok, Command(fixture, [0, 0, 1]));
        fixture.AssertServes(3);
        Assert.Equal([true, true, true, true, false, false], Enabled(backEnd));
        Assert.Equal(Ok, SetPairs(fixture, 1));
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void What_was_set_is_saved_and_restored()
    {
        using FrontEndFixture fixture = Make(out _);
        fixture.Driver.Start();
        Assert.Equal(Ok, SetPairs(fixture, 2));
        Assert.Equal(Ok, Command(fixture, [1, 1, 2, 0, 0, 0, 0, 9]));
        fixture.Driver.Stop();
        var saved = Assert.IsType<VhostUserState>(fixture.Device.Save());
        Assert.Equal(new NetControlState(2, new MacAddress(0x0200_0000_0009)), saved.Control);
        using FrontEndFixture target = Make(out BackEndOfTest backEnd);
        target.Device.Restore(saved);
        target.Driver.Start();
        target.AssertServes(3);
        Assert.Equal([true, true, true, true, false, false], Enabled(backEnd));
        Assert.Equal(9, target.Driver.Configuration(5, 1)[0]);
        target.Driver.Reset();
        foreach (NetControlState wrong in (NetControlState[])[new(0, default), new(Pairs + 1, default), new(1, MacAddress.Broadcast)])
            Assert.Throws<VmmException>(() => target.Device.Restore(saved with { Control = wrong }));
    }

    [Theory]
    [InlineData(new byte[] { 4, 0, 0, 0 })]
    [InlineData(new byte[] { 4, 0, 4, 0 })]
    [InlineData(new byte[] { 4, 0, 0xFF, 0xFF })]
    [InlineData(new byte[] { 4, 0, 1 })]
    [InlineData(new byte[] { 4, 1, 1, 0 })]
    [InlineData(new byte[] { 4 })]
    [InlineData(new byte[] { 1, 1, 1, 0, 0, 0, 0, 9 })]
    [InlineData(new byte[] { 1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 3, 0 })]
    [InlineData(new byte[] { 5, 0, 1, 0, 0, 0, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 0xFF, 0xFF })]
    public void What_cannot_be_is_an_error_and_changes_nothing(byte[] command)
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        Assert.Equal(Ok, SetPairs(fixture, 2));
        Assert.Equal(Error, Command(fixture, command));
        Assert.Equal([true, true, true, true, false, false], Enabled(backEnd));
        Assert.Equal(s_mac, fixture.Driver.Configuration(0, 6));
        fixture.AssertServes(3);
        RecordedCounters counters = RecordedCounters.Of(fixture.Device);
        Assert.Equal((1, 1, 2), (counters["control_commands"], counters["control_errors"], counters[$"queue{Control}_requests"]));
    }

    [Fact]
    public void Random_commands_are_all_answered()
    {
        var random = new Random(20261121);
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        int pairs = 1;
        for (int i = 0; i < 3_000; i++)
        {
            byte[] command = new byte[random.Next(1, 40)];
            random.NextBytes(command);
            if (random.Next(4) != 0)
                (command[0], command[^1]) = ((byte)random.Next(7), (byte)random.Next(2));
            if (random.Next(3) == 0)
                command = [4, 0, (byte)random.Next(6), (byte)(random.Next(10) == 0 ? 1 : 0)];
            byte answer = Command(fixture, command);
            if (command.Length >= 4 && command[0] == 4 && command[1] == 0)
            {
                int asked = BinaryPrimitives.ReadUInt16LittleEndian(command.AsSpan(2));
                Assert.Equal(asked is >= 1 and <= Pairs ? Ok : Error, answer);
                pairs = answer == Ok ? asked : pairs;
            }
        }
        Assert.Equal(pairs, Enabled(backEnd).Count(enabled => enabled) / 2);
        Assert.Empty(backEnd.Violations);
        Assert.False(fixture.Driver.Host.IsResetNeeded);
        fixture.AssertServes((2 * pairs) - 1);
    }

    [Fact]
    public void A_flood_of_commands_holds_the_device_up_no_longer_than_it_lasts()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        for (int i = 0; i < 20; i++)
        {
            DriverQueue queue = fixture.Driver.Queues[Control];
            while (queue.Add([0, 0, 1], writable: 1) >= 0)
            {
            }
            queue.Kick();
            fixture.BackEnd.Session!.Channel!.ConfigChange();
            while (queue.InFlight > 0)
                _ = queue.WaitUsed();
        }
        fixture.Driver.Reset();
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void A_refusal_of_the_back_end_is_an_error_for_the_driver_and_is_undone()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        Assert.Equal(Ok, SetPairs(fixture, 1));
        // Rings 2, 3 and 4 are enabled, 5 is not.
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Nack(), first: 4);
        Assert.Equal(Error, SetPairs(fixture, 3));
        Assert.Equal([true, true, false, false, false], Enabled(backEnd)[..5]);
        fixture.AssertServes(0);
        Assert.Equal(Ok, SetPairs(fixture, 3));
        fixture.AssertServes(5);
        Assert.Equal(0, fixture.FrontEnd.Counters.Losses);
    }

    [Fact]
    public void A_refusal_that_cannot_be_undone_costs_the_connection_and_not_the_answer()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        // The last that is enabled: what is planned is for the command.
        fixture.AssertServes(1);
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Nack(), times: 2);
        Assert.Equal(Error, SetPairs(fixture, 3));
        fixture.WaitForLog("there again");
        fixture.AssertServes(1);
        Assert.Equal([true, true, false, false, false, false], Enabled(backEnd));
    }

    [Fact]
    public void A_command_is_answered_though_the_back_end_dies_of_it_and_holds_for_the_next_one()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        // The last that is enabled: what is planned is for the command.
        fixture.AssertServes(1);
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Close);
        Assert.Equal(Ok, SetPairs(fixture, 3));
        fixture.WaitForLog("there again");
        fixture.AssertServes(5);
        Assert.Equal(2, fixture.FrontEnd.Counters.Connects);
    }

    [Fact]
    public void A_command_to_a_back_end_that_does_not_answer_has_its_deadline()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        // The last that is enabled: what is planned is for the command.
        fixture.AssertServes(1);
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Silence);
        var clock = System.Diagnostics.Stopwatch.StartNew();
        Assert.Equal(Ok, SetPairs(fixture, 2));
        Assert.InRange(clock.ElapsedMilliseconds, 500, 10_000);
        fixture.AssertServes(3);
    }

    [Fact]
    public void Without_a_back_end_commands_are_answered_at_once_and_hold_for_the_next_one()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        fixture.Driver.Start();
        fixture.AssertServes(0);
        fixture.Server.Dispose();
        fixture.WaitForLog("lost its back-end");
        Assert.Equal(Ok, SetPairs(fixture, 3));
        Assert.Equal(Error, SetPairs(fixture, 4));
        Assert.Equal(Ok, Command(fixture, [1, 1, 2, 0, 0, 0, 0, 9]));
        fixture.RestartBackEnd();
        fixture.AssertServes(5);
        Assert.Equal(9, fixture.Driver.Configuration(5, 1)[0]);
    }

    [Fact]
    public void A_driver_that_knows_no_pairs_finds_the_control_queue_behind_the_first_one()
    {
        using FrontEndFixture fixture = Make(out BackEndOfTest backEnd);
        using var driver = new GuestDriver(fixture.Device, RingFeatures.Of(0), ~VirtioFeatures.AllQueues & ~NetFeatures.MultiQueue);
        driver.Start(0, 1, 2);
        Assert.Equal([1, 2], driver.Queues[0].Transact([1, 2], writable: 2));
        Assert.Equal([Ok], driver.Queues[2].Transact([0, 0, 1], writable: 1));
        Assert.Equal([Error], driver.Queues[2].Transact([4, 0, 2, 0], writable: 1));
        Assert.Equal(2, backEnd.Transcript.Count(FrontEndRequest.SET_VRING_KICK));
        driver.Reset();
        // All that there are, most of which mean nothing; and one that knows no control queue either.
        driver.Start();
        Assert.Equal([Ok], driver.Queues[2].Transact([0, 0, 1], writable: 1));
        driver.Stop();
        using var plain = new GuestDriver(fixture.Device, RingFeatures.Of(0));
        plain.Start();
        Assert.Equal([3], plain.Queues[1].Transact([3], writable: 1));
        plain.Stop();
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void A_broken_control_ring_stops_the_device_until_it_is_reset()
    {
        using FrontEndFixture fixture = Make(out _);
        fixture.Driver.Start();
        fixture.AssertServes();
        DriverQueue queue = fixture.Driver.Queues[Control];
        // More is available than the ring has.
        fixture.Driver.Memory.Write(queue.DriverArea + 2, BitConverter.GetBytes((ushort)1000));
        queue.Doorbell.Signal();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
        fixture.Driver.Host.ForgetResets();
        fixture.Driver.Reset();
        fixture.Driver.Start();
        Assert.Equal(Ok, SetPairs(fixture, 2));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_back_end_with_one_pair_is_not_taken_for_more(bool knowsFeature)
    {
        var backEnd = new BackEndOfTest(new EchoDevice(Control)) { QueueCount = Pairs };
        if (knowsFeature)
        {
            backEnd.Features |= NetFeatures.MultiQueue;
            backEnd.ProtocolFeatures &= ~Vmm.VhostUserBackEnd.Protocol.ProtocolFeatures.MQ;
        }
        VmmException error = Assert.Throws<VmmException>(() => new FrontEndFixture(backEnd, Settings));
        Assert.Contains("has one pair of queues", error.Message, StringComparison.Ordinal);
        backEnd = new BackEndOfTest(new EchoDevice(Control)) { QueueCount = Pairs - 1 };
        backEnd.Features |= NetFeatures.MultiQueue;
        error = Assert.Throws<VmmException>(() => new FrontEndFixture(backEnd, Settings));
        Assert.Contains("it has 4 queues, and 6 are asked for", error.Message, StringComparison.Ordinal);
    }

    private static FrontEndFixture Make(out BackEndOfTest backEnd)
    {
        // The back-ends of network cards count pairs.
        backEnd = new BackEndOfTest(new EchoDevice(Control)) { QueueCount = Pairs };
        backEnd.Features |= NetFeatures.MultiQueue;
        return new FrontEndFixture(backEnd, Settings);
    }

    private static VhostUserSettings Settings(VhostUserSettings settings) => settings with
    {
        Id = "net0",
        Type = VirtioDeviceType.Network,
        Configuration = [.. s_mac, 1, 0, Pairs, 0, 0, 0],
        HasControlQueue = true,
        OwnFeatures = NetFeatures.Mac | NetFeatures.Status | NetFeatures.CtrlVq | NetFeatures.CtrlRx | NetFeatures.CtrlRxExtra | NetFeatures.MultiQueue | NetFeatures.CtrlMacAddr,
    };

    private static bool[] Enabled(BackEndOfTest backEnd) => [.. backEnd.Session!.Vrings.Select(vring => vring.IsEnabled)];

    private static byte SetPairs(FrontEndFixture fixture, int pairs) => Command(fixture, [4, 0, (byte)pairs, (byte)(pairs >> 8)]);

    private static byte Command(FrontEndFixture fixture, byte[] command)
    {
        Assert.True(fixture.Driver.Queues[Control].Add(command, writable: 1) >= 0);
        fixture.Driver.Queues[Control].Kick();
        return Assert.Single(fixture.WaitUsed(Control));
    }
}
