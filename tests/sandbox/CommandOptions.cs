namespace Vmm.Sandbox;

/// <summary>How a command is to run in the sandbox. All of it optional.</summary>
public sealed record CommandOptions
{
    /// <summary>
    /// Time on the host's clock after which the command and all its descendants are killed. What the sandbox waited for a processor of a
    /// busy host does not count, up to 4 times this.
    /// </summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Environment variables to add or replace.</summary>
    public IReadOnlyDictionary<string, string>? Environment { get; init; }

    /// <summary>The directory to run in; null for the root.</summary>
    public string? Directory { get; init; }

    /// <summary>Called with each piece of output as it arrives, on a background thread; must not block for long. The bytes are valid only during the call.</summary>
    public OutputHandler? OnOutput { get; init; }

    /// <summary>Whether the result holds the output as well. Off for commands that write without end.</summary>
    public bool KeepOutput { get; init; } = true;

    /// <summary>What the command reads; null for an input that is at its end from the start.</summary>
    public Stream? Input { get; init; }

    /// <summary>Keep the input open for <see cref="RunningCommand.WriteInputAsync"/>, when <see cref="Input"/> is null. A terminal's is open anyway.</summary>
    public bool InputLater { get; init; }

    /// <summary>Run on a terminal of its own (stdout and stderr are then one), of this size; null for pipes.</summary>
    public TerminalSize? Terminal { get; init; }
}

/// <summary>The size of a terminal in characters.</summary>
public readonly record struct TerminalSize(ushort Rows, ushort Columns);

/// <summary>Takes a piece of a command's output.</summary>
/// <param name="isError">It was written to the standard error.</param>
/// <param name="data">The bytes, valid only during the call.</param>
public delegate void OutputHandler(bool isError, ReadOnlySpan<byte> data);
