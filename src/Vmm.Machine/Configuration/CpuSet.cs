using System.Globalization;

namespace Vmm.Machine.Configuration;

/// <summary>Processors of the host, written as <c>0-3+8</c>: ranges joined by plus signs.</summary>
internal static class CpuSet
{
    /// <summary>The most that the kernel's masks are given here.</summary>
    internal const int Limit = 1024;

    /// <summary>Reads one; null where it is none.</summary>
    internal static int[]? TryParse(ReadOnlySpan<char> text)
    {
        var set = new SortedSet<int>();
        foreach (Range part in text.Split('+'))
        {
            ReadOnlySpan<char> range = text[part];
            int dash = range.IndexOf('-');
            if (!TryNumber(dash < 0 ? range : range[..dash], out int first) || !TryNumber(dash < 0 ? range : range[(dash + 1)..], out int last) || last < first)
                return null;
            for (int cpu = first; cpu <= last; cpu++)
                set.Add(cpu);
        }
        return [.. set];
    }

    private static bool TryNumber(ReadOnlySpan<char> text, out int number) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number < Limit;
}
