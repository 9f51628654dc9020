using Vmm.Core;
using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>
/// The raw mode of this process's terminal. It is a property of the terminal and outlives the process, so it is put back on every way
/// out that a process has: by Dispose, at the process's normal exit, before an unhandled exception ends it, and before a signal does
/// (<see cref="TerminationSignals"/>). Only SIGKILL leaves it raw.
/// </summary>
public sealed unsafe class TerminalMode : IDisposable
{
    private static readonly object s_gate = new();
    private static TerminalMode? s_current;
    private static bool s_hooked;
    private static bool s_final;

    private readonly int _fd;
    private readonly termios _saved;

    private TerminalMode(int fd, in termios saved)
    {
        _fd = fd;
        _saved = saved;
    }

    /// <summary>Whether the terminal is raw now, so that a newline needs its carriage return.</summary>
    public static bool IsRaw => Volatile.Read(ref s_current) is not null;

    /// <summary>Makes the terminal raw; null when the descriptor is none. Not twice at the same time.</summary>
    /// <exception cref="VmmException">The terminal refuses.</exception>
    public static TerminalMode? EnterRaw(int fd)
    {
        lock (s_gate)
        {
            termios saved;

            // The pointers are to locals.
            if (s_final || s_current is not null || LibC.tcgetattr(fd, &saved) != 0)
                return null;

            HookExits();
            var mode = new TerminalMode(fd, saved);
            termios raw = saved;
            LibC.cfmakeraw(&raw);

            // Before the change, so that there is no moment at which an exit would leave it raw.
            s_current = mode;
            if (LibC.tcsetattr(fd, LibC.TCSADRAIN, &raw) == 0)
                return mode;

            int error = LibC.errno;
            s_current = null;
            throw VmmException.Host($"Cannot put the terminal into raw mode for the serial console: {LibC.strerror(error)}; try --serial null.");
        }
    }

    /// <summary>Puts the terminal back if it is raw. From any thread, any number of times.</summary>
    public static void RestoreNow()
    {
        lock (s_gate)
        {
            if (s_current is not { } mode)
                return;
            termios saved = mode._saved;

            // Not after draining: a terminal that nobody reads any more would hold up the exit.
            _ = LibC.tcsetattr(mode._fd, LibC.TCSANOW, &saved);
            s_current = null;
        }
    }

    /// <summary>Puts the terminal back, its cursor too, and leaves it alone from now on: the process ends.</summary>
    public static void RestoreForGood()
    {
        HiddenCursor.ShowForGood();
        lock (s_gate)
            s_final = true;
        RestoreNow();
    }

    /// <summary>Puts the terminal back.</summary>
    public void Dispose()
    {
        if (ReferenceEquals(Volatile.Read(ref s_current), this))
            RestoreNow();
    }

    private static void HookExits()
    {
        if (s_hooked)
            return;
        s_hooked = true;
        AppDomain.CurrentDomain.ProcessExit += (_, _) => RestoreNow();
        AppDomain.CurrentDomain.UnhandledException += (_, _) => RestoreNow();
    }
}
