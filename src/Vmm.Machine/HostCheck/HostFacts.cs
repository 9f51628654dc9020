using System.Globalization;

namespace Vmm.Machine.HostCheck;

/// <summary>What /proc and /sys say. The roots can be others, for tests.</summary>
internal sealed class HostFacts(string proc = "/proc", string sys = "/sys")
{
    private static readonly string[] s_modules = ["kvm_intel", "kvm_amd", "kvm_pvm"];

    /// <summary>The KVM module that is loaded, or null.</summary>
    internal string? Module => Array.Find(s_modules, module => Directory.Exists(Path.Combine(sys, "module", module)));

    /// <summary>vm.max_map_count.</summary>
    internal long? MaxMapCount => Number(Path.Combine(proc, "sys/vm/max_map_count"));

    /// <summary>A line of /proc/meminfo, in bytes.</summary>
    internal ulong? Memory(string name)
    {
        foreach (string line in (Text(Path.Combine(proc, "meminfo")) ?? "").Split('\n'))
        {
            if (!line.StartsWith(name, StringComparison.Ordinal) || line.Length <= name.Length || line[name.Length] != ':')
                continue;
            string kilobytes = line[(name.Length + 1)..].Replace("kB", "", StringComparison.Ordinal).Trim();
            return ulong.TryParse(kilobytes, NumberStyles.None, CultureInfo.InvariantCulture, out ulong count) ? count * 1024 : null;
        }

        return null;
    }

    /// <summary>Reserved huge pages of the sizes that the host knows, the smallest first.</summary>
    internal IReadOnlyList<HostHugePages> HugePages()
    {
        var pages = new List<HostHugePages>();
        foreach (ulong kilobytes in (ReadOnlySpan<ulong>)[2048, 1048576])
        {
            string folder = Path.Combine(sys, $"kernel/mm/hugepages/hugepages-{kilobytes}kB");
            if (Number(Path.Combine(folder, "nr_hugepages")) is { } total && Number(Path.Combine(folder, "free_hugepages")) is { } free)
                pages.Add(new HostHugePages(kilobytes * 1024, total, free));
        }

        return pages;
    }

    private static long? Number(string path) =>
        long.TryParse(Text(path)?.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : null;

    private static string? Text(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
