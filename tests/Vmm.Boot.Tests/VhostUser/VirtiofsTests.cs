using System.Globalization;
using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>
/// A file system of virtiofsd: files in and out, data verified, a driver that leaves and comes back, a virtiofsd that is killed, a reboot.
/// </summary>
/// <remarks><c>VMM_TEST_FILES_SECONDS</c> is how long random operations on a file are compared (600 for ten minutes); else there are 500 of them.</remarks>
[Collection(BackEndCollection.Name)]
public sealed class VirtiofsTests(VirtioHost host, ITestOutputHelper log)
{
    public static TheoryData<string, string, bool> Rows()
    {
        var rows = new TheoryData<string, string, bool> { { "debian-13-disk", "pci", false } };
        if (VirtioHost.Full)
        {
            rows.Add("debian-12-disk", "pci", true);
            rows.Add("debian-12-disk", "mmio", false);
            rows.Add("debian-13-disk", "mmio", true);
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task A_guest_uses_a_directory_of_the_host(string image, string bus, bool started)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "these are options of vmm");
        await host.RequireProgram("virtiofsd");
        string share = $"{host.Scratch}/share";
        await BackEndGuests.Must(host, $"rm -rf {share}; mkdir {share}; echo from the host > {share}/hello");
        string seconds = Environment.GetEnvironmentVariable("VMM_TEST_FILES_SECONDS") ?? "0";
        string operations = seconds != "0" ? "0" : VirtioHost.Full ? "20000" : "500";
        // The same operations in every run of the short kind.
        string seed = seconds != "0" ? Random.Shared.Next().ToString(CultureInfo.InvariantCulture) : "1";
        string arguments = $"--shared-dir {share} --sandbox none";
        string socket = $"{host.Scratch}/fs.sock";
        // As a service it ends when its client leaves, and somebody starts it again.
        IAsyncDisposable? service = started ? null : await BackEndGuests.Start(host, "virtiofsd", $"{Program} --socket-path={socket} {arguments}");
        try
        {
            await BackEndGuests.Check(
                host,
                new GuestMachine(image, bus, false)
                {
                    Disks = [new GuestDisk(await host.FreshRoot(image))],
                    Options =
                    [
                        .. BackEndGuests.Options(host), "--fs",
                        started ? $"tag=share,exec=\"{Program} --fd={{fd}} {arguments}\"" : $"tag=share,socket={socket}",
                    ],
                    Script = $"bus={bus} metrics={BackEndGuests.Metrics(host)} full={(VirtioHost.Full ? 1 : 0)} share={share} files={(VirtioHost.Full ? 5000 : 200)} size={BackEndGuests.FioSize} seconds={seconds} operations={operations} "
                        + $"seed={seed} rounds={VirtioHost.Rounds} back_end='{(started ? "pgrep -P $pid" : $"cat {host.Scratch}/virtiofsd.pid")}' sh /run/vmm/fs.sh",
                },
                log);
        }
        finally
        {
            if (service != null)
                await service.DisposeAsync();
        }
    }

    private const string Program = "/usr/libexec/virtiofsd";
}
