using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd;
using Xunit.Abstractions;

namespace Vmm.Virtio.Tests.VhostUser.Gpu;

/// <summary>
/// Random messages to a display that are nearly right. VMM_TEST_VHOST_USER_MESSAGES says how many, VMM_TEST_VHOST_USER_SEED from which seed.
/// </summary>
public sealed class DisplayFuzzTests(ITestOutputHelper output)
{
    private static readonly long s_messages = RandomMessages.Number("VMM_TEST_VHOST_USER_MESSAGES", 20_000);
    private static readonly int s_seed = (int)RandomMessages.Number("VMM_TEST_VHOST_USER_SEED", 20261121);

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
            (byte[] message, int descriptors) = RandomMessages.ToDisplay(random);
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


    /// <summary>How many descriptors this process has of a file; others come and go with other tests.</summary>
    private static int Count(string name) => Directory.GetFiles("/proc/self/fd").Count(path => new FileInfo(path).LinkTarget?.Contains(name, StringComparison.Ordinal) ?? false);
}
