using System.Text.Json;

namespace Vmm.Machine.Configuration;

/// <summary>Writes a section's fields into an open JSON object.</summary>
internal readonly struct JsonSectionWriter(Utf8JsonWriter json) : IConfigWriter
{
    public void Text(string key, string? value)
    {
        if (value is not null)
            json.WriteString(key, value);
    }

    public void Number(string key, long? value)
    {
        if (value is { } number)
            json.WriteNumber(key, number);
    }

    public void Size(string key, ulong? value)
    {
        if (value is { } bytes)
            json.WriteString(key, ByteSize.Format(bytes));
    }

    public void Flag(string key, bool? value)
    {
        if (value is { } flag)
            json.WriteBoolean(key, flag);
    }

    public void List(string key, IReadOnlyList<string> items)
    {
        if (items.Count == 0)
            return;
        json.WriteStartArray(key);
        foreach (string item in items)
            json.WriteStringValue(item);
        json.WriteEndArray();
    }
}
