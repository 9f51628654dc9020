using System.Diagnostics;

namespace Vmm.Sandbox;

/// <summary>The terminal this program was started on, in raw mode until disposed of. By stty, which knows termios; no P/Invoke in tests.</summary>
internal sealed class HostTerminal : IDisposable
{
    private readonly string saved;

    private HostTerminal(string saved, TerminalSize size)
    {
        this.saved = saved;
        Size = size;
        AppDomain.CurrentDomain.ProcessExit += Restore;
    }

    public TerminalSize Size { get; }

    /// <summary>Null if the standard input is no terminal.</summary>
    public static HostTerminal? TryMakeRaw()
    {
        if (Console.IsInputRedirected || Stty("-g") is not { Length: > 0 } saved)
            return null;
        var terminal = new HostTerminal(saved, ReadSize() ?? new TerminalSize(24, 80));
        Stty("raw", "-echo");
        return terminal;
    }

    public static TerminalSize? ReadSize()
    {
        var words = Stty("size")?.Split(' ');
        return words is [var rows, var columns] && ushort.TryParse(rows, out var r) && ushort.TryParse(columns, out var c) ? new TerminalSize(r, c) : null;
    }

    public void Dispose()
    {
        AppDomain.CurrentDomain.ProcessExit -= Restore;
        Stty(saved);
    }

    private void Restore(object? sender, EventArgs e) => Stty(saved);

    private static string? Stty(params string[] arguments)
    {
        var info = new ProcessStartInfo("stty", arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(info);
        if (process is null)
            return null;
        var output = process.StandardOutput.ReadToEnd().Trim();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : null;
    }
}
