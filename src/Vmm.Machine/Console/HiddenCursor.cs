using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>
/// A terminal whose cursor is hidden while a program draws on it. As <see cref="TerminalMode"/> does with its settings, the cursor and plain
/// colours are put back on every way out that a process has; only SIGKILL leaves them.
/// </summary>
public sealed unsafe class HiddenCursor : IDisposable
{
    private static readonly object s_gate = new();
    private static HiddenCursor? s_current;
    private static bool s_hooked;
    private static bool s_final;

    private readonly int _fd;

    private HiddenCursor(int fd) => _fd = fd;

    /// <summary>Hides it; null when the descriptor is no terminal, when it is hidden already, or when the process ends.</summary>
    public static HiddenCursor? Enter(int fd)
    {
        lock (s_gate)
        {
            if (s_final || s_current is not null || LibC.isatty(fd) != 1)
                return null;
            if (!s_hooked)
            {
                s_hooked = true;
                AppDomain.CurrentDomain.ProcessExit += (_, _) => ShowNow();
                AppDomain.CurrentDomain.UnhandledException += (_, _) => ShowNow();
            }

            // Before it is hidden, so that there is no moment at which an exit would leave it so.
            s_current = new HiddenCursor(fd);
            s_current.Write("\e[?25l"u8);
            return s_current;
        }
    }

    /// <summary>Shows it if it is hidden. From any thread, any number of times.</summary>
    public static void ShowNow()
    {
        lock (s_gate)
        {
            s_current?.Write("\e[0m\e[?25h"u8);
            s_current = null;
        }
    }

    /// <summary>Shows it, and hides none from now on: the process ends.</summary>
    internal static void ShowForGood()
    {
        lock (s_gate)
            s_final = true;
        ShowNow();
    }

    /// <summary>Shows it.</summary>
    public void Dispose()
    {
        if (ReferenceEquals(Volatile.Read(ref s_current), this))
            ShowNow();
    }

    private void Write(ReadOnlySpan<byte> text)
    {
        // A terminal that nobody reads any more, or that is stopped by Ctrl-S, must not hold up the exit.
        var wait = new pollfd { fd = _fd, events = LibC.POLLOUT };
        if (LibC.poll(&wait, 1, 200) != 1)
            return;

        // The bytes are static, and the length is theirs.
        fixed (byte* bytes = text)
            _ = LibC.write(_fd, bytes, (nuint)text.Length);
    }
}
