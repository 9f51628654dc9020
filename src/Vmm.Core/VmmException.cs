namespace Vmm.Core;

/// <summary>Whose mistake an error is; decides the exit code of the program.</summary>
public enum VmmErrorKind
{
    /// <summary>The host or its kernel refused something, or a resource of it ran out (exit code 1).</summary>
    Host,

    /// <summary>An argument, a configuration file or an input file (kernel, initramfs) is wrong (exit code 2).</summary>
    Configuration,
}

/// <summary>
/// An error for people: what was being done, on what, why it failed and what to do next, in one line.
/// Never thrown for anything that a guest did.
/// </summary>
public class VmmException : Exception
{
    /// <summary>Makes an error of a kind, with a whole sentence as its message.</summary>
    public VmmException(VmmErrorKind kind, string message, Exception? inner = null)
        : base(message, inner) => Kind = kind;

    /// <summary>Whose mistake it is.</summary>
    public VmmErrorKind Kind { get; }

    /// <summary>A mistake in arguments, configuration or input files.</summary>
    public static VmmException Configuration(string message, Exception? inner = null) =>
        new(VmmErrorKind.Configuration, message, inner);

    /// <summary>Something that the host refused.</summary>
    public static VmmException Host(string message, Exception? inner = null) =>
        new(VmmErrorKind.Host, message, inner);
}
