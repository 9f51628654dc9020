using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;
using Vmm.Virtio.Devices.Console;
using ConsoleConfig = Vmm.Machine.Configuration.ConsoleConfig;

namespace Vmm.Machine;

/// <summary>
/// What of a machine outlives its guest's reboots: the other ends of its consoles, the images and interfaces of its virtio devices, and the
/// threads that serve them.
/// </summary>
internal sealed class MachineOutside : IDisposable
{
    private readonly Stack<IDisposable> _opened = new();

    /// <summary>Opens all of it.</summary>
    /// <param name="config">What to open.</param>
    /// <param name="ports">The host's ends of the virtio console's ports.</param>
    /// <param name="events">Told what happens at the consoles.</param>
    /// <param name="report">Takes sentences about what goes wrong at a device.</param>
    /// <param name="threadFailed">Told of an exception on a thread that serves devices, which nobody caught: a defect of this program.</param>
    /// <param name="terminal">What is at the other end of a console that is <c>tty</c>; null for this program's terminal.</param>
    /// <param name="cancel">Ends a wait for back-end processes.</param>
    /// <exception cref="VmmException">Something cannot be opened.</exception>
    internal MachineOutside(
        VmConfig config, IReadOnlyList<ConsolePortEnd> ports, ConsoleEvents events, Action<string> report, Action<Exception> threadFailed, GuestConsole? terminal, CancellationToken cancel)
    {
        Report = report;
        try
        {
            Serial = Open(OpenConsole(config.Serial, input: true));
            Debug = Open(GuestConsole.Open(config.DebugConsole, events, input: false));
            Console = Open(OpenConsole(config.Console, input: true));
            Virtio = Open(new VirtioRegistry(config, Console, ports, report, cancel));
            // A machine without such devices does without such threads.
            Threads = Open(new IoThreads(Virtio.Plans.Count == 0 ? config.IoThreads with { Count = 0 } : config.IoThreads, threadFailed));
        }
        catch
        {
            Dispose();
            throw;
        }

        GuestConsole OpenConsole(ConsoleConfig console, bool input) =>
            terminal != null && console.Backend == ConsoleBackend.Tty ? terminal : GuestConsole.Open(console, events, input);
    }

    /// <summary>The other end of COM1.</summary>
    internal GuestConsole Serial { get; }

    /// <summary>The other end of port 0xE9.</summary>
    internal GuestConsole Debug { get; }

    /// <summary>The other end of the virtio console.</summary>
    internal GuestConsole Console { get; }

    /// <summary>The virtio devices.</summary>
    internal VirtioRegistry Virtio { get; }

    /// <summary>Who serves their queues.</summary>
    internal IoThreads Threads { get; }

    /// <summary>Takes sentences about what goes wrong at a device, as often as a guest provokes them.</summary>
    internal Action<string> Report { get; }

    /// <summary>The watchdog reset the machine, which its next guest is to find.</summary>
    internal bool WatchdogExpired { get; set; }

    public void Dispose()
    {
        while (_opened.TryPop(out IDisposable? opened))
            opened.Dispose();
    }

    private T Open<T>(T opened) where T : IDisposable
    {
        _opened.Push(opened);
        return opened;
    }
}
