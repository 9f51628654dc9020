using System.Globalization;

namespace Vmm.Machine.Configuration;

/// <summary>Sizes as people write them: a number of bytes, or of K, M, G or T, which are powers of 1024.</summary>
public static class ByteSize
{
    /// <summary>1024 bytes.</summary>
    public const ulong KiB = 1UL << 10;

    /// <summary>1024 KiB.</summary>
    public const ulong MiB = 1UL << 20;

    /// <summary>1024 MiB.</summary>
    public const ulong GiB = 1UL << 30;

    /// <summary>1024 GiB.</summary>
    public const ulong TiB = 1UL << 40;

    /// <summary>Reads "512M", "1g", "4096"; false for anything else, and for what does not fit 64 bits.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out ulong bytes)
    {
        bytes = 0;
        if (text.IsEmpty)
            return false;

        ulong unit = text[^1] switch
        {
            'k' or 'K' => KiB,
            'm' or 'M' => MiB,
            'g' or 'G' => GiB,
            't' or 'T' => TiB,
            _ => 1,
        };
        ReadOnlySpan<char> digits = unit == 1 ? text : text[..^1];
        if (!ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out ulong count) || count > ulong.MaxValue / unit)
            return false;

        bytes = count * unit;
        return true;
    }

    /// <summary>The shortest exact way to write a size, so that reading it again gives the same number.</summary>
    public static string Format(ulong bytes) => bytes switch
    {
        0 => "0",
        _ when bytes % TiB == 0 => $"{bytes / TiB}T",
        _ when bytes % GiB == 0 => $"{bytes / GiB}G",
        _ when bytes % MiB == 0 => $"{bytes / MiB}M",
        _ when bytes % KiB == 0 => $"{bytes / KiB}K",
        _ => bytes.ToString(CultureInfo.InvariantCulture),
    };
}
