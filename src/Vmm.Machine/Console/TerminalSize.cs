using System.Runtime.InteropServices;
using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>Tells the size of the program's terminal, now and when it changes (SIGWINCH).</summary>
public sealed class TerminalSize : IDisposable
{
    private readonly PosixSignalRegistration _registration;

    /// <summary>Tells it at once, where there is a terminal, and from then on.</summary>
    /// <param name="changed">Gets columns and rows; returns soon and does not throw.</param>
    public TerminalSize(Action<ushort, ushort> changed)
    {
        ArgumentNullException.ThrowIfNull(changed);
        Tell(changed);
#pragma warning disable CA1416 // KVM, and so this program, is Linux's.
        _registration = PosixSignalRegistration.Create(PosixSignal.SIGWINCH, _ => Tell(changed));
#pragma warning restore CA1416
    }

    /// <inheritdoc/>
    public void Dispose() => _registration.Dispose();

    private static unsafe void Tell(Action<ushort, ushort> changed)
    {
        winsize size;
        if (LibC.ioctl(0, LibC.TIOCGWINSZ, &size) == 0)
            changed(size.ws_col, size.ws_row);
    }
}
