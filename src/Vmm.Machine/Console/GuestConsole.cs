using Vmm.Core;
using Vmm.Devices;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Console;

/// <summary>
/// The other end of a character device: what <c>--serial</c> and <c>--debug-console</c> name. Output is taken at once and in order;
/// a vCPU that writes waits only while 256 KiB are on their way, and a device that must not wait is told to come back. Order of use: <see cref="Open"/>, <see cref="Start"/> with the
/// device's receiver, run, Dispose, which still writes what is there (for two seconds at most) and puts a terminal back.
/// </summary>
public abstract class GuestConsole : IBufferedCharacterSink, IDisposable
{
    /// <summary>How long the end waits for somebody slow to take the last output.</summary>
    protected const int FlushMilliseconds = 2000;

    /// <summary>Console threads only move bytes.</summary>
    private protected const int StackBytes = 128 * 1024;

    /// <summary>Where to find it: the pseudo-terminal's or the socket's path; null for the others.</summary>
    public virtual string? Location => null;

    /// <summary>The last 40 lines at most of what the guest wrote, for the report of a crash.</summary>
    public abstract string LastLines { get; }

    /// <summary>Opens the other end; for <see cref="ConsoleBackend.Off"/> there is none.</summary>
    /// <param name="config">Which one.</param>
    /// <param name="events">Whom to tell about keys and losses.</param>
    /// <param name="input">Whether its input is wanted. Only then is a terminal put into raw mode.</param>
    /// <exception cref="VmmException">It cannot be opened.</exception>
    public static GuestConsole Open(ConsoleConfig config, ConsoleEvents events, bool input)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(events);
        return config.Backend switch
        {
            ConsoleBackend.Null or ConsoleBackend.Off => new NullConsole(),
            ConsoleBackend.Tty => StreamConsole.OnStandardStreams(events, input),
            ConsoleBackend.File => StreamConsole.ToFile(config.Path!, events),
            ConsoleBackend.Pty => new ConnectionConsole(new PtyEnd(), input),
            ConsoleBackend.Socket => new ConnectionConsole(new SocketEnd(config.Path!), input),
            _ => throw new ArgumentOutOfRangeException(nameof(config), config.Backend, "There is no such console."),
        };
    }

    /// <summary>Starts to move bytes, once. The receiver is null where input has nowhere to go, and it is thrown away then.</summary>
    public abstract void Start(ConsoleReceiver? receive);

    /// <summary>
    /// The device has room for input again, after its receiver took less than it was offered. Cheap; may be called with the device locked.
    /// </summary>
    public abstract void SpaceAvailable();

    /// <summary>
    /// The machine ends: nobody waits any more for somebody slow to take output, and what finds no room is lost. Otherwise a vCPU that
    /// waits here could not be ended. From any thread, any number of times.
    /// </summary>
    public abstract void LetGo();

    /// <inheritdoc/>
    public abstract Action? RoomAvailable { get; set; }

    /// <inheritdoc/>
    public abstract void Write(ReadOnlySpan<byte> data);

    /// <inheritdoc/>
    public abstract int TryWrite(ReadOnlySpan<byte> data);

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Writes what is there, ends the threads, closes.</summary>
    protected abstract void Dispose(bool disposing);

    /// <summary>What a failure at opening or writing is, as an error for people.</summary>
    private protected static VmmException Error(string doing, int error, string next) =>
        VmmException.Host($"{doing}: {Core.Interop.LibC.strerror(error)}; {next}");
}
