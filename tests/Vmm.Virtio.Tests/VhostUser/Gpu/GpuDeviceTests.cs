using System.Buffers.Binary;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.Virtio.Tests.Devices;
using Vmm.Virtio.VhostUser.Gpu;
using BackEndOfTest = Vmm.VhostUserBackEnd.BackEnd;

namespace Vmm.Virtio.Tests.VhostUser.Gpu;

/// <summary>A graphics card with the tests' back-end: when it gets a display, and what becomes of the one when the other goes.</summary>
public sealed class GpuDeviceTests
{
    private const uint CmdGetDisplayInfo = 0x0100;
    private const uint CmdGetEdid = 0x010A;

    [Fact]
    public void A_guest_is_told_the_size()
    {
        using var gpu = new GpuDevice();
        using FrontEndFixture fixture = Make(gpu);
        fixture.Driver.Start();
        byte[] information = Ask(fixture, CmdGetDisplayInfo, 408);
        Assert.Equal([0x1101, 1280, 800, 1], (uint[])[Word(information, 0), Word(information, 32), Word(information, 36), Word(information, 40)]);
        byte[] edid = Ask(fixture, CmdGetEdid, 1056);
        Assert.Equal([0x1104, 128], (uint[])[Word(edid, 0), Word(edid, 24)]);
        Assert.Equal(0, (byte)edid.AsSpan(32, 128).ToArray().Sum(value => value));
        Assert.Empty(fixture.BackEnd.Violations);
        Assert.Equal(1, fixture.BackEnd.Transcript.Count(FrontEndRequest.GPU_SET_SOCKET));
    }

    [Fact]
    public void It_has_its_display_before_it_starts_and_no_other_after_a_reset()
    {
        using var gpu = new GpuDevice();
        using FrontEndFixture fixture = Make(gpu);
        fixture.Driver.Start();
        _ = Ask(fixture, CmdGetDisplayInfo, 408);
        string[] names = [.. fixture.BackEnd.Transcript.Names];
        Assert.InRange(Array.IndexOf(names, "GPU_SET_SOCKET"), 1, Array.IndexOf(names, "SET_VRING_KICK") - 1);
        Assert.Equal(0, gpu.Display.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 640, 480)));
        fixture.Driver.Reset();
        fixture.Driver.Start();
        _ = Ask(fixture, CmdGetDisplayInfo, 408);
        Assert.Equal(1, gpu.Displays);
        fixture.WaitFor(() => fixture.FrontEnd.DisplayCounters!.Width == 640, "the scanout");
        Assert.Empty(fixture.BackEnd.Violations);
    }

    [Fact]
    public void One_that_lost_its_display_by_its_fault_serves_on_and_gets_another_with_the_next_driver()
    {
        using var gpu = new GpuDevice();
        using FrontEndFixture fixture = Make(gpu);
        fixture.Driver.Start();
        _ = Ask(fixture, CmdGetDisplayInfo, 408);
        Assert.Equal(0, gpu.Display.Send(GpuDisplay.Encode(99)));
        Assert.True(gpu.Display.WaitForEnd());
        fixture.WaitForLog("the connection to its display is ended: it sent a request 99");
        // Its queues are another matter.
        Assert.Equal(0x1100u, Word(Ask(fixture, 0x0101, 24), 0));
        Assert.Equal((1, 0), (fixture.FrontEnd.Counters.Connects, fixture.FrontEnd.Counters.Losses));
        fixture.Driver.Reset();
        fixture.Driver.Start();
        Assert.Equal(0x1101u, Word(Ask(fixture, CmdGetDisplayInfo, 408), 0));
        Assert.Equal(2, gpu.Displays);
    }

    [Fact]
    public void The_next_back_end_gets_a_display_of_its_own()
    {
        using var gpu = new GpuDevice();
        using FrontEndFixture fixture = Make(gpu);
        fixture.Driver.Start();
        _ = Ask(fixture, CmdGetDisplayInfo, 408);
        GpuDisplay first = gpu.Display;
        fixture.BackEnd.Session!.Disconnect();
        fixture.WaitFor(() => gpu.Displays == 2, "another display");
        Assert.Equal(0x1101u, Word(Ask(fixture, CmdGetDisplayInfo, 408), 0));
        Assert.NotSame(first, gpu.Display);
        Assert.Equal((2, 0), (fixture.FrontEnd.DisplayCounters!.Connects, fixture.FrontEnd.DisplayCounters.Breaks));
    }

    [Fact]
    public void A_display_that_stands_in_the_middle_of_a_picture_holds_nobody_up()
    {
        using var gpu = new GpuDevice();
        FrontEndFixture fixture = Make(gpu);
        fixture.Driver.Start();
        _ = Ask(fixture, CmdGetDisplayInfo, 408);
        gpu.Display.Send(GpuDisplay.Encode(GpuDisplay.Update, 0, 0, 0, 100, 100).AsSpan(0, 25));
        var clock = System.Diagnostics.Stopwatch.StartNew();
        fixture.Driver.Reset();
        fixture.Driver.Start();
        Assert.Equal(0x1100u, Word(Ask(fixture, 0x0101, 24), 0));
        fixture.Dispose();
        Assert.InRange(clock.ElapsedMilliseconds, 0, 8_000);
    }

    [Fact]
    public void The_driver_finds_one_display_whatever_the_back_end_says()
    {
        using FrontEndFixture fixture = Make(new GpuDevice());
        Assert.Equal([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], fixture.Driver.Configuration(0, 16));
    }

    [Fact]
    public void Its_counters_are_told_with_the_others()
    {
        using var gpu = new GpuDevice();
        using FrontEndFixture fixture = Make(gpu);
        fixture.Driver.Start();
        _ = Ask(fixture, CmdGetDisplayInfo, 408);
        gpu.Display.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 640, 480));
        gpu.Display.Fill(0, 0, 10, 10, 1);
        Assert.NotNull(gpu.Display.Ask(GpuDisplay.GetProtocolFeatures));
        var counters = new RecordedCounters();
        fixture.Device.ReportCounters(counters);
        Assert.Equal(
            [1, 0, 4, 1, 1, 400, 0, 0, 0, 0, 640, 480],
            ((string[])["connects", "breaks", "messages", "scanouts", "updates", "update_bytes", "dmabufs", "cursors", "dropped", "screenshots", "width", "height"]).Select(name => counters[$"display_{name}"]));
    }

    private static FrontEndFixture Make(GpuDevice gpu) => new(new BackEndOfTest(gpu), settings => settings with
    {
        Id = "gpu0",
        Type = VirtioDeviceType.Gpu,
        QueueSizes = [64, 16],
        ConfigurationOverlay = [(0, [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])],
        Display = new DisplaySettings { Width = 1280, Height = 800 },
    });

    private static byte[] Ask(FrontEndFixture fixture, uint command, int length)
    {
        byte[] request = new byte[32];
        BinaryPrimitives.WriteUInt32LittleEndian(request, command);
        Assert.True(fixture.Driver.Queues[0].Add(request, writable: length) >= 0);
        fixture.Driver.Queues[0].Kick();
        return fixture.WaitUsed();
    }

    private static uint Word(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[offset..]);
}
