using System.Diagnostics;
using System.Net;
using Vmm.Core;
using Vmm.Virtio.Devices.Net;

namespace Vmm.Virtio.Tests.Devices.Net;

/// <summary>Real taps for tests, where this machine lets them be made.</summary>
internal static class TapHost
{
    private static int s_networks;

    /// <summary>Skips the test where there are no taps.</summary>
    public static void Require()
    {
        try
        {
            Tap.Open(new NetConfig { Id = "probe" }).Dispose();
        }
        catch (VmmException e)
        {
            Skip.If(true, $"No tap can be made here: {e.Message}");
        }
    }

    /// <summary>A network of benchmarking addresses (RFC 2544) that no other test has: the host is .1, the guest .2.</summary>
    public static uint NextNetwork() => 0xC612_0000u + ((uint)Interlocked.Increment(ref s_networks) << 8);

    public static IPAddress Address(uint address) => new([(byte)(address >> 24), (byte)(address >> 16), (byte)(address >> 8), (byte)address]);

    /// <summary>Runs ip(8); skips the test where it is not there or cannot.</summary>
    public static void Ip(string arguments)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo("ip", arguments) { RedirectStandardError = true })!;
            string error = process.StandardError.ReadToEnd();
            process.WaitForExit();
            Skip.If(process.ExitCode != 0, $"ip {arguments}: {error}");
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            Skip.If(true, $"ip(8) is not there: {e.Message}");
        }
    }

    /// <summary>A value of /sys/class/net.</summary>
    public static string Read(string name, string file) => File.ReadAllText($"/sys/class/net/{name}/{file}").Trim();

    public static bool Exists(string name) => Directory.Exists($"/sys/class/net/{name}");

    /// <summary>Descriptors of this process that are taps.</summary>
    public static int OpenTaps() =>
        Directory.EnumerateFileSystemEntries("/proc/self/fd").Count(f => new FileInfo(f).LinkTarget == "/dev/net/tun");
}
