using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>A graphics card of QEMU's vhost-user-gpu: the size that the guest is told, what it draws, and what is seen of that on the host.</summary>
[Collection(BackEndCollection.Name)]
public sealed class GpuTests(VirtioHost host, ITestOutputHelper log)
{
    // The cloud kernels have no drivers for graphics cards.
    private const string Image = "debian-13-gpu";
    private const string Program = "/usr/lib/qemu/vhost-user-gpu";
    private const int Width = 800, Height = 600;

    public static TheoryData<string, bool> Rows()
    {
        var rows = new TheoryData<string, bool> { { "pci", true } };
        if (VirtioHost.Full)
        {
            rows.Add("pci", false);
            rows.Add("mmio", true);
        }
        return rows;
    }

    /// <summary>With pixels, or with dma-bufs, which is what the back-end prefers where it may make any (/dev/udmabuf).</summary>
    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task A_guest_draws_on_a_display_of_the_size_that_was_asked_for(string bus, bool pixels)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "these are options of vmm");
        await host.RequireProgram("vhost-user-gpu");
        await host.AddImage(Image);
        const string folder = "/run/vmm-gpu";
        string picture = $"{host.Scratch}/screen.ppm";
        await BackEndGuests.Must(host, $"rm -f {picture}; mkdir -p {folder} && chown nobody {folder}");
        await using IAsyncDisposable? service = pixels
            ? await BackEndGuests.Start(host, "gpu", $"setpriv --reuid=nobody --regid=nogroup --clear-groups {Program} -s {folder}/socket")
            : null;
        string backEnd = pixels ? $"socket={folder}/socket" : $"exec=\"{Program} -s {{socket}}\"";
        await BackEndGuests.Check(
            host,
            new GuestMachine(Image, bus, false)
            {
                Root = "",
                Options = [.. BackEndGuests.Options(host), "--gpu", $"width={Width},height={Height},screenshot={picture},{backEnd}"],
                Script = $"metrics={BackEndGuests.Metrics(host)} picture={picture} width={Width} height={Height} pixels={(pixels ? 1 : 0)} sh /vmm/gpu.sh",
            },
            log);
    }
}
