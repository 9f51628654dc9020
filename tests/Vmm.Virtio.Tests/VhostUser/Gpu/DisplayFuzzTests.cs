using System.Globalization;
using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd;
using Xunit.Abstractions;

namespace Vmm.Virtio.Tests.VhostUser.Gpu;

/// <summary>
/// Random messages to a display that are nearly right. VMM_TEST_VHOST_USER_MESSAGES says how many, VMM_TEST_VHOST_USER_SEED from which seed.
/// </summary>
public sealed class DisplayFuzzTests(ITestOutputHelper output)
{
    private static readonly long s_messages = Number("VMM_TEST_VHOST_USER_MESSAGES", 20_000);
    private static readonly int s_seed = (int)Number("VMM_TEST_VHOST_USER_SEED", 20261121);

    [Fact]
    public void Whatever_comes_the_display_serves_the_next_one()
    {
        var random = new Random(s_seed);
        using var fixture = new DisplayFixture(settings => settings with { Reply = 20 }, screenshot: true);
        string name = $"buffer-{Guid.NewGuid():N}";
        using var file = new FileDescriptor(LibC.memfd_create(name, LibC.MFD_CLOEXEC));
        long sent = 0, connections = 1;
        while (sent < s_messages)
        {
            (byte[] message, int descriptors) = Any(random);
            sent++;
            bool ends = fixture.Peer.Send(message, [.. Enumerable.Repeat(file.Number, descriptors)]) != 0;
            // Answers are read, but for one who does not.
            while (!ends && fixture.Peer.HasInput && random.Next(50) != 0)
                ends = fixture.Peer.Receive(1_000) == null;
            if (!ends && random.Next(500) != 0)
                continue;
            fixture.Peer.Dispose();
            fixture.Connect();
            connections++;
        }
        fixture.Peer.Dispose();
        fixture.Connect();
        fixture.Settle();
        output.WriteLine($"seed {s_seed}: {sent} messages on {connections} connections, {fixture.Counters.Messages} taken, {fixture.Counters.Breaks} connections broken, {fixture.Counters.Updates} updates, {fixture.Counters.Screenshots} screenshots");
        Assert.DoesNotContain(fixture.Log, line => line.Contains("defect", StringComparison.Ordinal));
        Assert.All(fixture.Log, line => Assert.DoesNotContain('\n', line));
        // All that came are closed; this one is ours.
        DisplayFixture.WaitFor(() => Count(name) == 1, "descriptors to be closed");
        Assert.True(fixture.Counters.Updates > s_messages / 100 && fixture.Counters.Breaks > 0 && fixture.Counters.Screenshots > 0, "Some are right, some are wrong.");
    }

    private static (byte[] Message, int Descriptors) Any(Random random)
    {
        uint request = random.Next(400) == 0 ? (uint)random.NextInt64(uint.MaxValue) : (uint)random.Next(1, 13);
        uint width = (uint)random.Next(0, 40), height = (uint)random.Next(0, 40);
        uint[] numbers = request switch
        {
            GpuDisplay.SetProtocolFeatures => [(uint)random.Next(4), 0],
            GpuDisplay.CursorPos or GpuDisplay.CursorPosHide => [Small(random), Small(random), Small(random)],
            GpuDisplay.CursorUpdate => new uint[5 + (64 * 64)],
            GpuDisplay.Scanout => [Small(random), width, height],
            GpuDisplay.Update => [Small(random), Small(random), Small(random), width, height, .. new uint[width * height]],
            GpuDisplay.DmabufUpdate => [Small(random), 0, 0, width, height],
            GpuDisplay.GetEdid => [Small(random)],
            GpuDisplay.DmabufScanout or GpuDisplay.DmabufScanout2 => [Small(random), 0, 0, width, height, width, height, width * 4, 0, 0, .. new uint[request == GpuDisplay.DmabufScanout ? 0 : 2]],
            _ => [],
        };
        byte[] message = GpuDisplay.Encode(request, numbers);
        if (random.Next(100) == 0)
        {
            // One bit, or one field to an edge.
            if (random.Next(2) == 0 || message.Length < 16)
                message[random.Next(message.Length)] ^= (byte)(1 << random.Next(8));
            else
                BitConverter.TryWriteBytes(message.AsSpan(4 * random.Next(2, Math.Min(message.Length / 4, 8))), (uint)(random.Next(4) switch { 0 => uint.MaxValue, 1 => 0x8000_0000, 2 => 16384, _ => 65536 }));
        }
        if (random.Next(1000) == 0)
            message = message[..random.Next(1, message.Length + 1)];
        bool hasBuffer = request is GpuDisplay.DmabufScanout or GpuDisplay.DmabufScanout2;
        return (message, random.Next(100) == 0 ? random.Next(1, 200) : hasBuffer ? random.Next(2) : 0);
    }

    private static uint Small(Random random) => random.Next(20) == 0 ? (uint)random.NextInt64(uint.MaxValue + 1L) : (uint)random.Next(3) / 2;

    /// <summary>How many descriptors this process has of a file; others come and go with other tests.</summary>
    private static int Count(string name) => Directory.GetFiles("/proc/self/fd").Count(path => new FileInfo(path).LinkTarget?.Contains(name, StringComparison.Ordinal) ?? false);

    private static long Number(string name, long otherwise) =>
        long.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.None, CultureInfo.InvariantCulture, out long value) ? value : otherwise;
}
