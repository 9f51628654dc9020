using System.Text;

namespace Vmm.Sandbox;

/// <summary>How a command in the sandbox ended.</summary>
public sealed record CommandResult
{
    /// <summary>0 to 255 as the command gave it; 128 + the signal's number if a signal ended it.</summary>
    public required int ExitCode { get; init; }

    /// <summary>The signal that ended the command, or 0.</summary>
    public required int Signal { get; init; }

    /// <summary>The time limit passed, and the command and all its descendants were killed.</summary>
    public required bool TimedOut { get; init; }

    /// <summary>What it wrote to its standard output; with a terminal, everything.</summary>
    public required byte[] OutputBytes { get; init; }

    /// <summary>What it wrote to its standard error.</summary>
    public required byte[] ErrorBytes { get; init; }

    /// <summary><see cref="OutputBytes"/> as UTF-8 text.</summary>
    public string Output => Encoding.UTF8.GetString(OutputBytes);

    /// <summary><see cref="ErrorBytes"/> as UTF-8 text.</summary>
    public string Error => Encoding.UTF8.GetString(ErrorBytes);

    /// <summary>This, if the command ended with 0 in time; else an exception with its code and the end of its output.</summary>
    /// <exception cref="SandboxException">The command failed.</exception>
    public CommandResult EnsureSuccess()
    {
        if (ExitCode == 0 && !TimedOut)
            return this;
        var how = TimedOut ? "did not end within its time limit" : $"ended with exit code {ExitCode}";
        throw new SandboxException($"A command in the sandbox {how}. Its output ends with:\n{Tail(Output)}\nand its errors with:\n{Tail(Error)}");
    }

    private static string Tail(string text) => text.Length <= 4000 ? text : text[^4000..];
}
