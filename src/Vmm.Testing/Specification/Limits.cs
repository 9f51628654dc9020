using System.Globalization;
using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Testing.Specification;

/// <summary>Times as people write them: <c>60s</c>, <c>500ms</c>, <c>2m</c>, <c>1h</c>; a number alone is seconds.</summary>
public static class TimeLimit
{
    private static readonly (string Unit, double Seconds)[] s_units = [("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600)];

    /// <summary>Reads a time.</summary>
    /// <param name="origin">Where it was written, for the error.</param>
    /// <param name="text">The time; more than 0, at most 30 days.</param>
    /// <exception cref="VmmException">It is none.</exception>
    public static TimeSpan Parse(string origin, string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string number = text;
        double unit = 1;
        foreach ((string suffix, double seconds) in s_units)
        {
            if (!text.EndsWith(suffix, StringComparison.Ordinal))
                continue;
            (number, unit) = (text[..^suffix.Length], seconds);
            break;
        }
        if (!double.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double value) || value * unit is not (> 0 and <= 30 * 24 * 3600))
            throw VmmException.Configuration($"{origin}: {OptionGrammar.Show(text)} is no time; write one like 60s, 500ms, 2m or 1h.");
        return TimeSpan.FromSeconds(value * unit);
    }

    /// <summary>Writes a time so that <see cref="Parse"/> reads it.</summary>
    public static string Format(TimeSpan time) => time.TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture) + "s";
}
