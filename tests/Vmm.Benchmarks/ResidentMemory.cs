using System.Diagnostics;
using System.Globalization;

namespace Vmm.Benchmarks;

/// <summary>
/// Resident memory beyond the guest's, of a vmm whose guest of 128 MiB idles. By Firecracker's rule it is the RSS of all mappings
/// that are smaller than guest RAM (goal: at most 8 MiB); also RSS, PSS and private-dirty of everything but guest RAM.
/// </summary>
internal static class ResidentMemory
{
    private const long GuestKib = 128 << 10;

    public static int Run(string vmm)
    {
        using var floor = new Floor();
        // cli; hlt; and again.
        string kernel = floor.WriteKernel("idle.elf", [0xFA, 0xF4, 0xEB, 0xFD]);
        using Process process = Floor.Start(vmm, "run", "--kernel", kernel, "--memory", "size=128M", "--serial", "null");
        try
        {
            WaitForIdleVcpu(process);
            List<Mapping> mappings = Read(process.Id);
            Mapping[] guest = [.. mappings.Where(m => m.SizeKib == GuestKib)];
            if (guest.Length != 1)
                throw new InvalidOperationException($"{guest.Length} mappings of {GuestKib} KiB look like guest RAM.");
            long small = mappings.Where(m => m.SizeKib < GuestKib).Sum(m => m.RssKib);
            Mapping[] others = [.. mappings.Except(guest)];
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"Resident beyond the guest's 128 MiB: {small / 1024.0:F2} MiB by Firecracker's rule (goal 8 MiB); outside guest RAM RSS {others.Sum(m => m.RssKib) / 1024.0:F2}, PSS {others.Sum(m => m.PssKib) / 1024.0:F2}, private-dirty {others.Sum(m => m.PrivateDirtyKib) / 1024.0:F2} MiB; guest RAM RSS {guest[0].RssKib / 1024.0:F2} MiB"));
            foreach (Mapping m in others.OrderByDescending(m => m.RssKib).Take(12))
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {m.RssKib,6} KiB of {m.SizeKib,9} {m.Name}"));
            return 0;
        }
        finally
        {
            process.Kill();
            process.WaitForExit();
        }
    }

    private static void WaitForIdleVcpu(Process process)
    {
        for (int i = 0; i < 200; i++)
        {
            Thread.Sleep(50);
            if (process.HasExited)
                throw new InvalidOperationException($"vmm ended with {process.ExitCode}: {process.StandardError.ReadToEnd()}");
            if (Directory.GetDirectories($"/proc/{process.Id}/task").Any(t => File.ReadAllText(t + "/comm").StartsWith("vcpu0", StringComparison.Ordinal)))
            {
                Thread.Sleep(1000);
                return;
            }
        }
        throw new InvalidOperationException("vmm has no vCPU thread after 10 s.");
    }

    private static List<Mapping> Read(int process)
    {
        var all = new List<Mapping>();
        foreach (string line in File.ReadLines($"/proc/{process}/smaps"))
        {
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (!words[0].EndsWith(':'))
            {
                all.Add(new Mapping(words.Length > 5 ? string.Join(' ', words[5..]) : "anonymous", 0, 0, 0, 0));
                continue;
            }
            if (words.Length < 2 || !long.TryParse(words[1], CultureInfo.InvariantCulture, out long kib))
                continue;
            all[^1] = words[0] switch
            {
                "Size:" => all[^1] with { SizeKib = kib },
                "Rss:" => all[^1] with { RssKib = kib },
                "Pss:" => all[^1] with { PssKib = kib },
                "Private_Dirty:" => all[^1] with { PrivateDirtyKib = kib },
                _ => all[^1],
            };
        }
        return all;
    }

    private sealed record Mapping(string Name, long SizeKib, long RssKib, long PssKib, long PrivateDirtyKib);
}
