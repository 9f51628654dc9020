using System.Runtime.InteropServices;
using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>
/// SIGTERM, SIGINT, SIGHUP and SIGQUIT: the first one asks the program to end in good order, a second one ends it on the spot. Either
/// way the terminal is put back. .NET calls the handlers on a thread of its own, never in the signal's context.
/// </summary>
public sealed class TerminationSignals : IDisposable
{
    private readonly PosixSignalRegistration[] _registrations;
    private readonly Action<int> _end;
    private int _first;

    /// <summary>Starts to catch them. <paramref name="end"/> gets the signal's number once, returns soon, and does not throw.</summary>
    public TerminationSignals(Action<int> end)
    {
        ArgumentNullException.ThrowIfNull(end);
        _end = end;
        _registrations =
        [
            Register(PosixSignal.SIGTERM, LibC.SIGTERM),
            Register(PosixSignal.SIGINT, LibC.SIGINT),
            Register(PosixSignal.SIGHUP, LibC.SIGHUP),
            Register(PosixSignal.SIGQUIT, LibC.SIGQUIT),
        ];
    }

    /// <summary>The signal that came first, or 0.</summary>
    public int Received => Volatile.Read(ref _first);

    /// <summary>Gives the signals back their usual effect.</summary>
    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
            registration.Dispose();
    }

    private PosixSignalRegistration Register(PosixSignal signal, int number) =>
        PosixSignalRegistration.Create(signal, context =>
        {
            context.Cancel = true;
            if (Interlocked.CompareExchange(ref _first, number, 0) == 0)
            {
                _end(number);
                return;
            }

            ExitNow(number);
        });

    /// <summary>Ends the program on the spot, as if the signal had, with the terminal put back.</summary>
    private static void ExitNow(int number)
    {
        TerminalMode.RestoreForGood();
        LibC._exit(128 + number);
    }
}
