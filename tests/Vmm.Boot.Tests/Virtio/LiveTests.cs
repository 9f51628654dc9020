using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.Virtio;

/// <summary>
/// What is changed while a guest runs, through the library: tests/Vmm.LiveMachine embeds the machine and does what it is told.
/// </summary>
[Collection(BootCollection.Name)]
public sealed partial class LiveTests(BootHost host, ITestOutputHelper log)
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(5);

    // Touches most of its memory, so that the host has it; then waits for each change in turn.
    private const string GuestScript =
        """
        echo online_movable > /sys/devices/system/memory/auto_online_blocks
        head -c 150000000 /dev/urandom > /tmp/f; rm /tmp/f
        ip link set eth0 up
        await() { n=0; until eval "$2"; do n=$((n+1)); [ $n -lt 600 ] || { echo "LIVE $1 never"; return; }; sleep 0.2; done; echo "LIVE $1 ok"; }
        echo LIVE ready ok
        await resize '[ $(cat /sys/block/vda/size) = 65536 ]'
        await unplugged '[ $(cat /sys/class/net/eth0/carrier) = 0 ]'
        await plugged '[ $(cat /sys/class/net/eth0/carrier) = 1 ]'
        """;

    // A line that the guest has written is the only thing that is waited for by looking.
    private const string Commands =
        """
        seen() { until grep -q "LIVE $1" serial 2>/dev/null; do sleep 0.2; done; }
        seen ready
        echo tell; echo balloon 128M; echo wait balloon 128M; echo tell; echo balloon 0; echo wait balloon 0; echo tell
        echo memory 128M; echo wait memory 128M; echo memory 0; echo wait memory 0; echo tell
        echo pause; echo tell; echo resume
        truncate -s 32M disk; echo resize disk0
        seen resize
        echo link net0 off
        seen unplugged
        echo link net0 on
        """;

    [SkippableTheory]
    [InlineData("debian-12", "pci")]
    [InlineData("debian-13", "mmio")]
    public async Task A_machine_is_changed_while_its_guest_runs(string image, string bus)
    {
        host.Require();
        string? program = Environment.GetEnvironmentVariable("VMM_TEST_LIVE_MACHINE");
        Assert.False(program == null && Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1", "VMM_TEST_LIVE_MACHINE does not name the program; scripts/test does.");
        Skip.If(program == null, "VMM_TEST_LIVE_MACHINE does not name the program that embeds the machine; scripts/test builds it");
        string folder = $"{host.Scratch}/live-{image}-{bus}";
        await host.CopyIn(Path.GetDirectoryName(program)!, folder);
        string guest = Convert.ToBase64String(Encoding.UTF8.GetBytes(GuestScript));
        string[] options =
        [
            "--kernel", host.Image(image, "vmlinux"), "--initramfs", host.Image(image, "initramfs.cpio.gz"), "--memory", "size=256M,hotplug_size=256M",
            "--serial", "file=serial", "--net", "tap=vmmlive", "--balloon", "size=0", "--disk", "path=disk", "--bus", bus, "--cmdline",
            $"console=ttyS0 quiet vmm.modules=virtio_pci,virtio_mmio,virtio_blk,virtio_net,virtio_balloon,virtio_mem vmm.run64={guest} vmm.end=poweroff",
        ];
        CommandResult result = await host.Shell(
            $"cd {folder} && truncate -s 16M disk && {{ {Commands}\n}} | ./live-machine {string.Join(' ', options.Select(Sandbox.Sandbox.Quote))}; echo code=$?; grep LIVE serial",
            s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Contains("code=0", result.Output, StringComparison.Ordinal);
        foreach (string step in new[] { "ready", "resize", "unplugged", "plugged" })
            Assert.Contains($"LIVE {step} ok", result.Output, StringComparison.Ordinal);
        Assert.Contains("resize disk0: 33554432", result.Error, StringComparison.Ordinal);
        (ulong Balloon, ulong Memory, ulong Resident)[] told = [.. Told().Matches(result.Error).Select(match => (Number(match, 1), Number(match, 2), Number(match, 3)))];
        Assert.Equal([0UL, 128UL << 20, 0, 0, 0], told.Select(t => t.Balloon));
        // It had at least 100 MiB more before it gave half of its memory back.
        Assert.InRange(told[1].Resident, 0UL, told[0].Resident - (80 << 10));
        Assert.Contains($"wait memory 128M: balloon=0 memory={128 << 20}", result.Error, StringComparison.Ordinal);
        Assert.Equal(0UL, told[3].Memory);
    }

    private static ulong Number(Match match, int group) => ulong.Parse(match.Groups[group].Value, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^tell: balloon=(\d+) memory=(\d+) resident_kib=(\d+)", RegexOptions.Multiline)]
    private static partial Regex Told();
}
