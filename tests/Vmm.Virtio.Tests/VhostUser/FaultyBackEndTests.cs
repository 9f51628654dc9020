using Vmm.Core;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Protocol;
using BackEndOfTest = Vmm.VhostUserBackEnd.BackEnd;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>
/// Back-ends that lie, fall silent or flood: each costs its own connection at most, within the deadline, and the device is served again by the
/// next one.
/// </summary>
public sealed class FaultyBackEndTests
{
    private static readonly (string Name, Fault Fault)[] s_breaks =
    [
        ("wrong-id", Fault.WrongId), ("no-reply-flag", Fault.NoReplyFlag), ("version-0", Fault.Version(0)), ("version-2", Fault.Version(2)),
        ("reserved-flag", Fault.ExtraFlags(0x10)), ("need-reply-in-reply", Fault.ExtraFlags(8)), ("short", Fault.Size(4)), ("empty", Fault.Size(0)), ("long", Fault.Size(16)),
        ("huge", Fault.ClaimedSize(uint.MaxValue)), ("4097", Fault.ClaimedSize(4097)), ("half-header", Fault.Part(6)), ("truncated", Fault.Part(15)),
        ("silence", Fault.Silence), ("one-descriptor", Fault.ExtraDescriptors(1)), ("forty-descriptors", Fault.ExtraDescriptors(40)),
        ("all-descriptors", Fault.ExtraDescriptors(253)), ("close", Fault.Close), ("close-after", Fault.CloseAfter), ("twice", Fault.Twice),
    ];

    // Where each of them is put: while connecting, while starting, while stopping.
    private static readonly FrontEndRequest[] s_connecting = [FrontEndRequest.GET_FEATURES, FrontEndRequest.GET_PROTOCOL_FEATURES, FrontEndRequest.GET_QUEUE_NUM, FrontEndRequest.GET_MAX_MEM_SLOTS, FrontEndRequest.SET_BACKEND_REQ_FD, FrontEndRequest.GET_CONFIG];
    private static readonly FrontEndRequest[] s_starting = [FrontEndRequest.ADD_MEM_REG, FrontEndRequest.SET_VRING_KICK, FrontEndRequest.SET_VRING_CALL, FrontEndRequest.SET_VRING_ENABLE];

    public static TheoryData<string, FrontEndRequest> Connecting => Cases(s_connecting);

    public static TheoryData<string, FrontEndRequest> Starting => Cases(s_starting);

    public static TheoryData<string, FrontEndRequest> Stopping => Cases([FrontEndRequest.GET_VRING_BASE]);

    [Theory]
    [MemberData(nameof(Connecting))]
    public void While_connecting_it_is_an_error_for_people(string name, FrontEndRequest request)
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1, 2, 3, 4] };
        PlannedFault planned = backEnd.Plan(request, Find(name), times: int.MaxValue);
        // What comes after the last answer is only found afterwards.
        bool late = name is "close-after" or "twice" && request == FrontEndRequest.GET_CONFIG;
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 200 } }, connect: false);
        if (late)
        {
            fixture.Connect();
            fixture.WaitForLog("lost its back-end");
        }
        else
        {
            VmmException error = Assert.Throws<VmmException>(fixture.Connect);
            Assert.Contains("vu0", error.Message, StringComparison.Ordinal);
            Assert.DoesNotContain('\n', error.Message);
        }
        Assert.True(planned.Applied > 0);
    }

    [Theory]
    [MemberData(nameof(Starting))]
    public void While_starting_the_next_one_serves(string name, FrontEndRequest request)
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 200 } });
        PlannedFault planned = backEnd.Plan(request, Find(name));
        fixture.Driver.Start();
        fixture.AssertServes();
        fixture.WaitFor(() => planned.Applied > 0, "the fault");
        fixture.WaitForLog("lost its back-end");
        fixture.AssertServes();
    }

    [Theory]
    [MemberData(nameof(Stopping))]
    public void While_stopping_the_guest_goes_on(string name, FrontEndRequest request)
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 200, Stop = 200 } });
        fixture.Driver.Start();
        fixture.AssertServes();
        PlannedFault planned = backEnd.Plan(request, Find(name));
        var clock = System.Diagnostics.Stopwatch.StartNew();
        fixture.Driver.Reset();
        Assert.InRange(clock.ElapsedMilliseconds, 0, 20_000);
        Assert.Equal(1, planned.Applied);
        fixture.WaitForLog("lost its back-end");
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    [Theory]
    [InlineData(FrontEndRequest.ADD_MEM_REG)]
    [InlineData(FrontEndRequest.SET_VRING_CALL)]
    [InlineData(FrontEndRequest.SET_VRING_KICK)]
    [InlineData(FrontEndRequest.SET_VRING_ENABLE)]
    public void A_refusal_to_start_is_undone_and_the_driver_may_try_again(FrontEndRequest request)
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        backEnd.Plan(request, Fault.Nack());
        fixture.Driver.Start();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
        Assert.Contains("refused", fixture.Driver.Host.ResetReasons[0], StringComparison.Ordinal);
        fixture.Driver.Host.ForgetResets();
        fixture.Driver.Reset();
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Equal(1, fixture.FrontEnd.Counters.Connects);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(1UL << 63)]
    [InlineData(ulong.MaxValue)]
    public void A_number_of_queues_that_cannot_be_is_an_error(ulong count)
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { QueueCount = count };
        using var fixture = new FrontEndFixture(backEnd, connect: false);
        Assert.Contains("queues", Assert.Throws<VmmException>(fixture.Connect).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void No_memory_slots_are_an_error_and_many_are_as_many_as_are_needed()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { MaxMemSlots = 0 };
        using var fixture = new FrontEndFixture(backEnd, connect: false);
        Assert.Throws<VmmException>(fixture.Connect);
        backEnd.MaxMemSlots = ulong.MaxValue;
        fixture.Connect();
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    [Fact]
    public void Fewer_memory_slots_than_the_guest_has_ranges_are_an_error_of_the_device()
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { MaxMemSlots = 1 };
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
    }

    public static TheoryData<string, ulong, ulong, bool> InflightLies => new()
    {
        { "huge", 1UL << 40, 0, true },
        { "longer-than-its-file", 1 << 16, 0, true },
        { "offset-past-its-end", 4096, 1UL << 40, true },
        { "overflow", 4096, ulong.MaxValue - 100, true },
        { "without-descriptor", 4096, 0, false },
    };

    [Theory]
    [MemberData(nameof(InflightLies))]
    public void Memory_for_requests_in_flight_that_cannot_be_breaks_the_connection(string name, ulong size, ulong offset, bool descriptor)
    {
        Assert.NotNull(name);
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        byte[] payload = new byte[24];
        BitConverter.TryWriteBytes(payload, size);
        BitConverter.TryWriteBytes(payload.AsSpan(8), offset);
        backEnd.Plan(FrontEndRequest.GET_INFLIGHT_FD, Fault.Answer(payload) with { });
        if (!descriptor)
            backEnd.ClearFaults();
        if (!descriptor)
            backEnd.Plan(FrontEndRequest.GET_INFLIGHT_FD, Fault.MissingDescriptors);
        fixture.Driver.Start();
        fixture.WaitForLog("requests in flight");
        fixture.AssertServes();
    }

    [Fact]
    public void A_queue_that_is_to_go_on_where_it_cannot_stand_breaks_the_connection()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Plan(FrontEndRequest.GET_VRING_BASE, Fault.Answer(new VringState(0, 60_000).ToBytes()));
        fixture.Driver.Restart();
        fixture.WaitForLog("lost its back-end: it said that queue 0 stands at 0xea60");
        fixture.AssertServes();
    }

    [Fact]
    public void A_queue_that_a_driver_has_filled_beyond_its_size_is_not_started()
    {
        using var fixture = new FrontEndFixture(new BackEndOfTest(new EchoDevice()));
        Assert.True(fixture.Driver.Memory.TryWrite(fixture.Driver.Queues[0].DriverArea + 2, (ushort)129));
        fixture.Driver.Start();
        fixture.Driver.Host.WaitUntil(() => fixture.Driver.Host.IsResetNeeded);
        fixture.Driver.Host.ForgetResets();
        fixture.Driver.Reset();
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Equal(0, fixture.FrontEnd.Counters.Losses);
    }

    [Fact]
    public void A_guest_that_overwrites_its_rings_before_a_reset_keeps_its_back_end()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        // As a kernel that another one takes the place of (kexec).
        foreach (ulong area in (ulong[])[fixture.Driver.Queues[0].DriverArea, fixture.Driver.Queues[0].DeviceArea])
            Assert.True(fixture.Driver.Memory.TryWrite(area, 0x5A5A_5A5A_5A5A_5A5AUL));
        fixture.Driver.Reset();
        fixture.Driver.Start();
        fixture.AssertServes();
        Assert.Equal(0, fixture.FrontEnd.Counters.Losses);
        Assert.Equal(1, fixture.FrontEnd.Counters.Connects);
    }

    [Theory]
    [InlineData(0u, 60_000u)]
    [InlineData(1u, 0u)]
    [InlineData(0u, 0x1234_0000u)]
    public void A_queue_that_stands_where_it_cannot_breaks_the_connection(uint index, uint number)
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Plan(FrontEndRequest.GET_VRING_BASE, Fault.Answer(new VringState(index, number).ToBytes()));
        fixture.Driver.Reset();
        // Where a queue stands that is reset matters to nobody, and the upper half of the number is nobody's.
        if (index != 0)
            fixture.WaitForLog("lost its back-end");
        fixture.Driver.Start();
        fixture.AssertServes();
    }

    public static TheoryData<string> ConfigurationLies => ["size-0", "other-offset", "other-size", "silence"];

    [Theory]
    [MemberData(nameof(ConfigurationLies))]
    public void A_configuration_that_cannot_be_leaves_the_old_one(string lie)
    {
        var backEnd = new BackEndOfTest(new EchoDevice()) { Config = [1, 2, 3, 4] };
        using var fixture = new FrontEndFixture(backEnd, settings => settings with { Timeouts = settings.Timeouts with { Request = 200 } });
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Plan(FrontEndRequest.GET_CONFIG, lie switch
        {
            "size-0" => Fault.Size(0),
            "other-offset" => Fault.Answer([1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9]),
            "other-size" => Fault.Answer([0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9]),
            _ => Fault.Silence,
        });
        int before = backEnd.Transcript.Count(FrontEndRequest.GET_CONFIG);
        _ = backEnd.Session!.Channel!.ConfigChange();
        fixture.WaitFor(() => backEnd.Transcript.Count(FrontEndRequest.GET_CONFIG) > before, "the read");
        Assert.Equal([1, 2, 3, 4], fixture.Driver.Configuration(0, 4));
        fixture.AssertServes();
    }

    [Fact]
    public void An_answer_that_nobody_asked_for_breaks_the_connection_at_once()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        fixture.Driver.Start();
        fixture.AssertServes();
        backEnd.Plan(FrontEndRequest.SET_FEATURES, Fault.Unsolicited);
        fixture.Driver.Reset();
        fixture.Driver.Start();
        fixture.WaitForLog("lost its back-end");
        fixture.AssertServes();
    }

    [Fact]
    public void A_slow_back_end_holds_nobody_up_who_starts_it()
    {
        var backEnd = new BackEndOfTest(new EchoDevice());
        using var fixture = new FrontEndFixture(backEnd);
        backEnd.Plan(FrontEndRequest.SET_VRING_ENABLE, Fault.Slow(600));
        var clock = System.Diagnostics.Stopwatch.StartNew();
        fixture.Driver.Start();
        Assert.InRange(clock.ElapsedMilliseconds, 0, 500);
        fixture.AssertServes();
        Assert.Equal(1, fixture.FrontEnd.Counters.Connects);
    }

    private static Fault Find(string name) => s_breaks.Single(entry => entry.Name == name).Fault;

    private static TheoryData<string, FrontEndRequest> Cases(FrontEndRequest[] requests)
    {
        var cases = new TheoryData<string, FrontEndRequest>();
        foreach (FrontEndRequest request in requests)
        {
            foreach ((string name, _) in s_breaks)
            {
                // A configuration space has no answer of a fixed length, and an empty one is its way to say no.
                if (request == FrontEndRequest.GET_CONFIG && name is "long")
                    continue;
                cases.Add(name, request);
            }
        }
        return cases;
    }
}
