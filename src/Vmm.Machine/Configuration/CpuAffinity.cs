using System.Globalization;

namespace Vmm.Machine.Configuration;

/// <summary>Where one thread may run: <c>affinity=[0@0-3,1@4+6]</c> says it of thread 0 and of thread 1.</summary>
/// <param name="Thread">The vCPU's or I/O thread's number, from 0.</param>
/// <param name="Cpus">Processors of the host as they were written: ranges joined by plus signs.</param>
public sealed record CpuAffinity(int Thread, string Cpus)
{
    internal static ConfigList<CpuAffinity> From(OptionFields fields, string key, string what, int count)
    {
        if (fields.Find(key) is not { } field)
            return ConfigList<CpuAffinity>.Empty;
        var list = new List<CpuAffinity>();
        foreach (string item in fields.Items(key))
        {
            int at = item.IndexOf('@', StringComparison.Ordinal);
            if (at < 0 || !int.TryParse(item.AsSpan(0, at), NumberStyles.None, CultureInfo.InvariantCulture, out int thread) || CpuSet.TryParse(item.AsSpan(at + 1)) is null)
                throw OptionFields.Error(field, $"{OptionGrammar.Show(item)} says nothing of where {what} runs; write {key}=[0@0-3,1@4+6].");
            if (thread >= count || list.Exists(earlier => earlier.Thread == thread))
                throw OptionFields.Error(field, $"{OptionGrammar.Show(item)} is about {what} {thread}, which {(thread >= count ? "there is not" : "is there twice")}.");
            list.Add(new CpuAffinity(thread, item[(at + 1)..]));
        }
        return new ConfigList<CpuAffinity>([.. list]);
    }

    internal static string[] ToItems(ConfigList<CpuAffinity> list) =>
        [.. list.Select(affinity => string.Create(CultureInfo.InvariantCulture, $"{affinity.Thread}@{affinity.Cpus}"))];

    /// <summary>The processors of a thread; null for all.</summary>
    internal static int[]? Of(ConfigList<CpuAffinity> list, int thread)
    {
        foreach (CpuAffinity affinity in list)
        {
            if (affinity.Thread == thread)
                return CpuSet.TryParse(affinity.Cpus);
        }
        return null;
    }
}
