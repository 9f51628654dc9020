namespace Vmm.Machine.Configuration;

/// <summary>How the text of an option is read.</summary>
public enum OptionShape
{
    /// <summary>The whole text is one value: a path, a command line, a word.</summary>
    Plain,

    /// <summary><c>key=value,key=[a,b],key="quoted, text"</c>.</summary>
    Fields,

    /// <summary>Exactly one word or <c>key=value</c>: <c>tty</c>, <c>file=PATH</c>. A more important source replaces it as a whole.</summary>
    Choice,
}

/// <summary>One option of the command line and the place in the configuration (section, key) that it sets.</summary>
/// <param name="Name">As on the command line, with its dashes.</param>
/// <param name="Argument">The syntax of its argument, for the help.</param>
/// <param name="Help">What it does and its default: one or two sentences.</param>
/// <param name="Section">The object of the configuration file that it sets.</param>
/// <param name="Key">The member of that object, or null when the option sets the section as a whole.</param>
/// <param name="Shape">How its text is read.</param>
/// <param name="Words">What can be completed after it: words, or keys with their "=".</param>
public sealed record OptionSchema(
    string Name, string Argument, string Help, string Section, string? Key, OptionShape Shape, IReadOnlyList<string> Words);

/// <summary>One object of the configuration: its name in a file, its keys, how a plain string in its place is read.</summary>
/// <param name="Name">The member's name in the configuration file; the environment has it in capitals after <c>VMM_</c>.</param>
/// <param name="Keys">The keys it knows. For <see cref="OptionShape.Plain"/> the one empty key.</param>
/// <param name="Shape">How a string in place of the object is read.</param>
/// <param name="Repeats">There can be several: a list in a file; the option is given once for each.</param>
public sealed record SectionSchema(string Name, IReadOnlyList<string> Keys, OptionShape Shape, bool Repeats = false)
{
    /// <summary>The key of a section that is one plain value.</summary>
    public const string Whole = "";
}
