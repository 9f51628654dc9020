using System.Globalization;
using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>
/// The fields of one section, gathered from all sources, each knowing where it was written. The readers below turn a field into a
/// value, or name the place, the mistake and the remedy in a <see cref="VmmException"/> of kind Configuration.
/// </summary>
public sealed class OptionFields
{
    private readonly List<OptionField> _fields = [];

    /// <summary>Starts with nothing set.</summary>
    /// <param name="schema">Which section this is.</param>
    /// <param name="origin">Where it was written, for an error about what is missing; null for the section's name.</param>
    public OptionFields(SectionSchema schema, string? origin = null)
    {
        ArgumentNullException.ThrowIfNull(schema);
        Schema = schema;
        Origin = origin ?? schema.Name;
    }

    /// <summary>Where it was written.</summary>
    public string Origin { get; }

    /// <summary>Which section this is.</summary>
    public SectionSchema Schema { get; }

    /// <summary>What is set, in no particular order.</summary>
    public IReadOnlyList<OptionField> All => _fields;

    /// <summary>Sets a field, in place of one from a less important source.</summary>
    /// <exception cref="VmmException">The section does not know the key.</exception>
    public void Set(OptionField field)
    {
        ArgumentNullException.ThrowIfNull(field);
        if (!Schema.Keys.Contains(field.Key))
            throw UnknownKey(field);
        if (Schema.Shape == OptionShape.Choice)
            _fields.Clear();
        else
            _fields.RemoveAll(earlier => earlier.Key == field.Key);
        _fields.Add(field);
    }

    /// <summary>The field of a key, or null where nobody set it.</summary>
    public OptionField? Find(string key)
    {
        foreach (OptionField field in _fields)
        {
            if (field.Key == key)
                return field;
        }

        return null;
    }

    /// <summary>A text, or <paramref name="otherwise"/>.</summary>
    public string? Text(string key, string? otherwise) => Find(key) is { } field ? Single(field) : otherwise;

    /// <summary>A path: a text that is not empty and has no NUL in it.</summary>
    public string? Path(string key)
    {
        if (Find(key) is not { } field)
            return null;
        string path = Single(field);
        if (path.Length == 0)
            throw Error(field, $"{Subject(field)} is an empty path; name a file.");
        if (path.Contains('\0', StringComparison.Ordinal))
            throw Error(field, $"{Named(field, path)} is no path: it has a zero byte in it.");
        return path;
    }

    /// <summary>on or off (true and false in a file).</summary>
    public bool Flag(string key, bool otherwise)
    {
        if (Find(key) is not { } field)
            return otherwise;
        string value = Single(field);
        if (Is(value, "on") || Is(value, "true"))
            return true;
        if (Is(value, "off") || Is(value, "false"))
            return false;
        throw Error(field, $"{Named(field, value)} is neither on nor off.");
    }

    /// <summary>The items of a list; one plain value is a list of one.</summary>
    public IReadOnlyList<string> Items(string key) =>
        Find(key) is not { } field ? [] : field.Items ?? [Single(field)];

    /// <summary>A whole decimal number from <paramref name="least"/> to <paramref name="most"/>.</summary>
    public int? Number(string key, int least, int most)
    {
        if (Find(key) is not { } field)
            return null;
        string value = Single(field);
        if (!IsDigits(value))
            throw Error(field, $"{Named(field, value)} is not a whole number; write one from {least} to {most}.");
        if (!int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number < least || number > most)
            throw Error(field, $"{Named(field, value)} is out of range; write a number from {least} to {most}.");
        return number;
    }

    /// <summary>A size in bytes from <paramref name="least"/> to <paramref name="most"/>, with a suffix K, M, G or T.</summary>
    public ulong Size(string key, ulong otherwise, ulong least, ulong most)
    {
        if (Find(key) is not { } field)
            return otherwise;
        string value = Single(field);
        if (!ByteSize.TryParse(value, out ulong bytes))
        {
            bool number = value.Length > 1 && IsDigits(value.TrimEnd("kKmMgGtT".ToCharArray()));
            throw Error(field, number && IsDigits(value[..^1]) ? $"{Named(field, value)} is out of range; it can be {ByteSize.Format(least)} to {ByteSize.Format(most)}."
                : $"{Named(field, value)} is not a size; write a number with K, M, G or T after it, as in 512M.");
        }

        if (bytes < least || bytes > most)
            throw Error(field, $"{Named(field, value)} is out of range; it can be {ByteSize.Format(least)} to {ByteSize.Format(most)}.");
        return bytes;
    }

    /// <summary>One of a few words.</summary>
    public T Word<T>(string key, T otherwise, IReadOnlyList<(string Word, T Value)> words)
    {
        ArgumentNullException.ThrowIfNull(words);
        if (Find(key) is not { } field)
            return otherwise;
        string value = Single(field);
        foreach ((string word, T meaning) in words)
        {
            if (Is(value, word))
                return meaning;
        }

        string[] known = [.. words.Select(word => word.Word)];
        throw Error(field, $"{Named(field, value)} is not one of {string.Join(", ", known)}.{Suggestion.DidYouMean(value, known)}");
    }

    /// <summary>An error about a field, beginning with where it was written.</summary>
    public static VmmException Error(OptionField field, string sentence)
    {
        ArgumentNullException.ThrowIfNull(field);
        return VmmException.Configuration($"{field.Origin}: {sentence}");
    }

    /// <summary>Where a key was written, for an error about how values fit together.</summary>
    public string OriginOf(string key) => Find(key)?.Origin ?? Schema.Name;

    private static string Single(OptionField field)
    {
        if (field.Items is not null)
            throw Error(field, $"{Subject(field)} takes one value, not a list.");
        return field.Value ?? throw Error(field, field.Key.Length == 0 ? "it has no value." : $"{OptionGrammar.Show(field.Key)} has no value; write {field.Key}=value.");
    }

    private VmmException UnknownKey(OptionField field)
    {
        if (field.Key.Length == 0)
            return Error(field, $"it takes an object with the keys {string.Join(", ", Schema.Keys)}.");
        if (Schema.Shape == OptionShape.Plain)
            return Error(field, $"it takes one value, so there is no key {OptionGrammar.Show(field.Key)}.");

        string hint = Suggestion.DidYouMean(field.Key, Schema.Keys);
        string known = $" It takes {string.Join(", ", Schema.Keys)}.";
        return Error(field, $"there is no key {OptionGrammar.Show(field.Key)}.{(hint.Length > 0 ? hint : known)}");
    }

    private static string Subject(OptionField field) => field.Key.Length == 0 ? "the value" : field.Key;

    private static string Named(OptionField field, string value) =>
        field.Key.Length == 0 ? OptionGrammar.Show(value) : OptionGrammar.Show($"{field.Key}={value}");

    private static bool Is(string value, string word) => string.Equals(value, word, StringComparison.OrdinalIgnoreCase);

    private static bool IsDigits(string value) => value.Length > 0 && value.AsSpan().IndexOfAnyExceptInRange('0', '9') < 0;
}
