using System.Text;
using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>
/// The grammar of option arguments, as libvirt and Kata users know it from Cloud Hypervisor:
/// <code>
/// fields = field *( "," field )
/// field  = key [ "=" value ]
/// value  = text | quoted | "[" [ item *( "," item ) ] "]"
/// item   = text | quoted
/// key    = 1*(letter, digit, _ or -)
/// text   = 1*(any character but , " [ ])
/// quoted = DQUOTE *(any character but " and \, or \" or \\) DQUOTE
/// </code>
/// Every mistake is a <see cref="VmmException"/> of kind Configuration that names the option.
/// </summary>
public static class OptionGrammar
{
    /// <summary>Longest text read; a longer one is a mistake, and would only make every message about it unreadable.</summary>
    public const int MaxLength = 64 * 1024;

    /// <summary>Reads the fields of one option's argument, in the order they are written; no key twice.</summary>
    /// <exception cref="VmmException">The text does not follow the grammar.</exception>
    public static IReadOnlyList<OptionField> Parse(string origin, string text)
    {
        ArgumentNullException.ThrowIfNull(origin);
        ArgumentNullException.ThrowIfNull(text);
        if (text.Length > MaxLength)
            throw Error(origin, $"the argument has {text.Length} characters; at most {MaxLength} are read.");
        if (text.AsSpan().Trim().IsEmpty)
            throw Error(origin, "the argument is empty; write key=value, separated by commas.");

        var fields = new List<OptionField>(4);
        int at = 0;
        while (true)
        {
            OptionField field = ReadField(origin, text, ref at);
            foreach (OptionField earlier in fields)
            {
                if (earlier.Key == field.Key)
                    throw Error(origin, $"{Show(field.Key)} is given twice; leave one of them out.");
            }

            fields.Add(field);
            if (at == text.Length)
                return fields;
            if (text[at] != ',')
                throw Error(origin, $"expected a comma before {Show(text[at..])}.");
            at++;
            if (at == text.Length)
                throw Error(origin, "there is a comma at the end with nothing after it; remove it.");
        }
    }

    /// <summary>Writes a value so that <see cref="Parse"/> reads the same value: as it is where that is possible, else in quotes.</summary>
    public static string Quote(string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        if (value.Length != 0 && value.AsSpan().IndexOfAny(",\"[]") < 0)
            return value;

        return "\"" + value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + "\"";
    }

    /// <summary>A piece of somebody's text for a message: on one line, without control characters, not too long.</summary>
    public static string Show(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        const int longest = 60;
        var shown = new StringBuilder("'");
        foreach (char c in text.AsSpan(0, Math.Min(text.Length, longest)))
        {
            if (char.IsControl(c) || c is '\u2028' or '\u2029')
                shown.Append($"\\u{(int)c:x4}");
            else
                shown.Append(c);
        }

        return shown.Append(text.Length > longest ? "…'" : "'").ToString();
    }

    private static OptionField ReadField(string origin, string text, ref int at)
    {
        int start = at;
        while (at < text.Length && text[at] is not ('=' or ',' or '"' or '[' or ']'))
            at++;
        string key = text[start..at];
        if (key.Length == 0)
        {
            throw Error(origin, at < text.Length && text[at] is ',' ? "there are two commas, or one at the start, with nothing between; remove one."
                : $"expected a key before {Show(text[at..])}; write key=value.");
        }

        foreach (char c in key)
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('_' or '-'))
                throw Error(origin, $"{Show(key)} is no key; keys are letters, digits and underscores.");
        }

        if (at == text.Length || text[at] == ',')
            return new OptionField(key, null, null, origin);
        if (text[at] != '=')
            throw Error(origin, $"{Show(key)} is followed by {Show(text[at..])}; write {key}=value.");

        at++;
        if (at < text.Length && text[at] == '[')
            return new OptionField(key, null, ReadList(origin, key, text, ref at), origin);
        return new OptionField(key, ReadText(origin, key, text, ref at), null, origin);
    }

    private static List<string> ReadList(string origin, string key, string text, ref int at)
    {
        var items = new List<string>();
        at++;
        if (at < text.Length && text[at] == ']')
        {
            at++;
            return items;
        }

        while (true)
        {
            items.Add(ReadText(origin, key, text, ref at));
            if (at == text.Length)
                throw Error(origin, $"the list of {Show(key)} has no closing bracket; write {key}=[a,b].");
            switch (text[at++])
            {
                case ']':
                    return items;
                case ',':
                    continue;
                default:
                    throw Error(origin, $"in the list of {Show(key)}, expected a comma or ] before {Show(text[(at - 1)..])}.");
            }
        }
    }

    private static string ReadText(string origin, string key, string text, ref int at)
    {
        if (at < text.Length && text[at] == '"')
            return ReadQuoted(origin, key, text, ref at);

        int start = at;
        while (at < text.Length && text[at] is not (',' or '"' or '[' or ']'))
            at++;
        if (at == start)
            throw Error(origin, $"{Show(key)} has no value; write {key}=value, or {key}=\"\" for an empty one.");
        return text[start..at];
    }

    private static string ReadQuoted(string origin, string key, string text, ref int at)
    {
        var value = new StringBuilder();
        at++;
        while (at < text.Length)
        {
            char c = text[at++];
            if (c == '"')
                return value.ToString();
            if (c == '\\')
            {
                if (at == text.Length || text[at] is not ('"' or '\\'))
                    throw Error(origin, $"in the value of {Show(key)}, a backslash stands only before \" or another backslash.");
                c = text[at++];
            }

            value.Append(c);
        }

        throw Error(origin, $"the value of {Show(key)} has no closing quote.");
    }

    private static VmmException Error(string origin, string sentence) => VmmException.Configuration($"{origin}: {sentence}");
}
