using System.Globalization;
using System.Text.RegularExpressions;

namespace Vmm.Boot.Tests;

/// <summary>What a guest's init said of its machine, in the line that starts with VMM-GUEST.</summary>
internal sealed partial record GuestReport(int Cpus, long MemoryKib, string Kernel, string CommandLine)
{
    /// <summary>Finds the line in a console's output; null where there is none.</summary>
    internal static GuestReport? Find(string console)
    {
        Match match = Line().Match(console);
        return match.Success
            ? new GuestReport(
                int.Parse(match.Groups["cpus"].Value, CultureInfo.InvariantCulture),
                long.Parse(match.Groups["memory"].Value, CultureInfo.InvariantCulture),
                match.Groups["kernel"].Value,
                match.Groups["cmdline"].Value.TrimEnd('\r'))
            : null;
    }

    [GeneratedRegex(@"^VMM-GUEST cpus=(?<cpus>\d+) memory_kib=(?<memory>\d+) free_kib=\d+ kernel=(?<kernel>\S+) uptime=\S+ cmdline=(?<cmdline>.*)$", RegexOptions.Multiline)]
    private static partial Regex Line();
}
