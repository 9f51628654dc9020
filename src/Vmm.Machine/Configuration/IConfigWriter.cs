namespace Vmm.Machine.Configuration;

/// <summary>
/// Takes what a section says, field by field, so that a section tells its fields once and both its option text and its JSON come of it.
/// What is not set (null) is left out.
/// </summary>
internal interface IConfigWriter
{
    /// <summary>A text.</summary>
    void Text(string key, string? value);

    /// <summary>A whole number.</summary>
    void Number(string key, long? value);

    /// <summary>A number of bytes, written as <see cref="ByteSize"/> does.</summary>
    void Size(string key, ulong? value);

    /// <summary>on or off.</summary>
    void Flag(string key, bool? value);

    /// <summary>A list of texts; an empty one is left out.</summary>
    void List(string key, IReadOnlyList<string> items);
}
