using System.Text;
using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;

namespace Vmm.Machine.Tests.Console;

/// <summary>
/// What <c>vmm run</c> does with a terminal, without a machine: input is echoed as the guest's output. "!" throws on another thread,
/// "f" floods. Ends with 7 for Ctrl-A x, 1 for a lost terminal, 128+n for a signal.
/// </summary>
internal static class ConsoleHost
{
    internal static int Run(string[] args)
    {
        int code = 0;
        using var ended = new ManualResetEventSlim();
        void End(int with)
        {
            Interlocked.CompareExchange(ref code, with, 0);
            ended.Set();
        }

        using var signals = new TerminationSignals(number => End(128 + number));
        GuestConsole? console = null;
        var events = new ConsoleEvents(
            command =>
            {
                if (command == ConsoleCommand.End)
                    End(7);
                else
                    console!.Write(Encoding.ASCII.GetBytes($"<{command}>"));
            },
            _ => End(1));
        using (console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Tty), events, input: true))
        {
            console.Write("ready\r\n"u8);
            bool hungGuest = args.Contains("hung");
            console.Start(data =>
            {
                if (hungGuest)
                    return 0;
                if (data.Contains((byte)'!'))
                    new Thread(() => throw new InvalidOperationException("on purpose")).Start();
                else
                    console.Write(data);
                return data.Length;
            });
            if (args.Contains("flood"))
                new Thread(() => Flood(console)) { IsBackground = true }.Start();
            ended.Wait();
        }

        return code;
    }

    private static void Flood(GuestConsole console)
    {
        while (true)
            console.Write("all work and no play makes a dull guest\r\n"u8);
    }
}
