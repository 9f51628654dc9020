using System.Globalization;
using System.Text;

namespace Vmm.Machine.Configuration;

/// <summary>Writes a section in the grammar of the command line.</summary>
internal sealed class OptionTextWriter : IConfigWriter
{
    private readonly StringBuilder _text = new();

    /// <summary>The argument of a section's option that says the same as the section.</summary>
    internal static string Of(IConfigSection section)
    {
        var writer = new OptionTextWriter();
        section.WriteTo(writer);
        return writer.ToString();
    }

    public void Text(string key, string? value)
    {
        if (value is not null)
            Append(key, OptionGrammar.Quote(value));
    }

    public void Number(string key, long? value)
    {
        if (value is { } number)
            Append(key, number.ToString(CultureInfo.InvariantCulture));
    }

    public void Size(string key, ulong? value)
    {
        if (value is { } bytes)
            Append(key, ByteSize.Format(bytes));
    }

    public void Flag(string key, bool? value)
    {
        if (value is { } flag)
            Append(key, flag ? "on" : "off");
    }

    public void List(string key, IReadOnlyList<string> items)
    {
        if (items.Count != 0)
            Append(key, $"[{string.Join(',', items.Select(OptionGrammar.Quote))}]");
    }

    public override string ToString() => _text.ToString();

    private void Append(string key, string value) => _text.Append(_text.Length == 0 ? "" : ",").Append(key).Append('=').Append(value);
}
