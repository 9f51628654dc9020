using System.Diagnostics;
using Vmm.Sandbox;

namespace Vmm.Virtio.Tests.VhostUser.RealBackEnds;

/// <summary>
/// The sandbox's Debian 13 as a directory for one program, in a mount namespace of its own: back-ends newer than this host's distribution.
/// Needs root and loop devices. Where it cannot be had, tests are skipped; VMM_REQUIRE_BOOT=1 makes that a failure.
/// </summary>
internal static class DebianRoot
{
    private static readonly Lazy<(string? Image, string? Problem)> s_image = new(Find);

    /// <summary>Skips the calling test where there is none.</summary>
    public static void Require()
    {
        if (s_image.Value.Problem is not { } problem)
            return;
        Assert.False(Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1", problem);
        Skip.If(true, problem);
    }

    /// <summary>Starts a program of it.</summary>
    /// <param name="shared">A directory of this host, which is /mnt there.</param>
    /// <param name="command">For its shell.</param>
    /// <param name="around">What puts a program into other namespaces, as unshare and nsenter do.</param>
    public static Process Start(string shared, string command, string around = "")
    {
        // Not chroot: whoever was put there by it may not make namespaces of its own.
        const string setUp = "mount -o loop,ro,noload \"$1\" /mnt && mount --bind \"$2\" /mnt/mnt && mount --rbind /proc /mnt/proc && mount --rbind /dev /mnt/dev"
            + " && mount -t tmpfs none /mnt/tmp && mount -t tmpfs none /mnt/run && cd /mnt && pivot_root . srv && umount -l srv && exec /bin/sh -c \"$3\"";
        var process = new Process { StartInfo = new ProcessStartInfo("env") { RedirectStandardError = true, RedirectStandardOutput = true, RedirectStandardInput = true } };
        string[] outer = around.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        foreach (string word in (string[])[.. outer, "unshare", "--mount", "--propagation", "private", "sh", "-c", setUp, "sh", s_image.Value.Image!, shared, command])
            process.StartInfo.ArgumentList.Add(word);
        process.Start();
        process.StandardInput.Close();
        return process;
    }

    private static (string? Image, string? Problem) Find()
    {
        if (!Environment.IsPrivilegedProcess)
            return (null, "Real back-ends need root, to mount the Debian that they come from.");
        try
        {
            string image = Path.Combine(SandboxImage.BuildAsync(SandboxFlavour.Debian).GetAwaiter().GetResult(), "root.ext4");
            using var probe = Process.Start("unshare", ["--mount", "--propagation", "private", "mount", "-o", "loop,ro,noload", image, "/mnt"]);
            probe.WaitForExit();
            return probe.ExitCode == 0 ? (image, null) : (null, "The Debian that real back-ends come from cannot be mounted here.");
        }
        catch (SandboxException e)
        {
            return (null, e.Message);
        }
    }
}
