using System.Net.Sockets;
using Vmm.Tests.Payloads;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Conformance;
using Vmm.VhostUserBackEnd.Rings;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>
/// The program and a guest on a vCPU against the scenarios of the back-end tool. Whatever the back-end did, the guest answers on its console in the end and
/// the machine ends as it is asked to; where a back-end cannot be used at all, the program says so in one line.
/// </summary>
/// <remarks>
/// Here are the rules of mappings, with each comment of their review, and of the others every fourth that needs no deadline; VMM_TEST_FULL=1 runs all. The
/// scenarios of a migration begin with what no option does: they are in Vmm.Virtio.Tests, with all others, against the front-end by itself.
/// </remarks>
public sealed class ConformanceTests
{
    private static readonly bool s_full = Environment.GetEnvironmentVariable("VMM_TEST_FULL") == "1";

    public static TheoryData<string, bool> Rows()
    {
        var rows = new TheoryData<string, bool>();
        int other = 0;
        foreach (Scenario scenario in Scenarios.All)
        {
            bool isPci = rows.Count % 2 == 0;
            if (scenario.Rule == "migration")
                continue;
            if (s_full || scenario.Rule == "mapping" || (scenario is not ReplyScenario { IsSilence: true } && other++ % 4 == 0))
                rows.Add(scenario.Name, isPci);
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public void The_guest_answers_on_its_console_whatever_the_back_end_did(string name, bool pci)
    {
        NeedsKvm.Check();
        using var folder = new VmmProgram();
        string socket = Path.Combine(folder.Folder, "back-end");
        using var machine = new Machine(folder, socket, pci);
        ScenarioResult result = ConformanceRunner.Run(Scenarios.Named(name), new ConformanceOptions
        {
            Socket = socket,
            ComesBack = true,
            Device = () => new Echo(),
            StartTimeout = TimeSpan.FromSeconds(30),
            ReactionTimeout = TimeSpan.FromSeconds(7),
            SilenceTimeout = TimeSpan.FromSeconds(15),
            OnListening = machine.Begin,
            OnEnd = machine.End,
            Died = () => machine.Problem,
        });
        Assert.True(result.Outcome == ScenarioOutcome.Pass && machine.Problem == null, $"{result.Outcome}: {result.Why}{machine.Problem}\n{machine.Log}\n{result.Transcript}");
    }

    /// <summary>A device with everything.</summary>
    private sealed class Echo : DeviceModel
    {
        internal const int ConfigurationLength = 16;

        public override byte[] InitialConfig => new byte[ConfigurationLength];

        public override ulong[] ShmemSizes => Scenarios.RegionSizes;

        public override int Handle(BackEndSession session, Vring queue, Chain chain) => chain.Write(0, chain.ReadAll());
    }

    /// <summary>A machine, which somebody starts again whenever its back-end cannot be used.</summary>
    private sealed class Machine(VmmProgram program, string socket, bool pci) : IDisposable
    {
        private const int Terminated = 143, HostError = 1, Terminate = 15;

        private readonly object _gate = new();
        private Thread? _thread;
        private RunningVmm? _running;
        private volatile bool _stop;
        private volatile string? _problem;

        internal string? Problem => _problem;

        internal string Log => _running?.Error ?? "";

        internal void Begin()
        {
            string kernel = program.Make("kernel", PoliteDriver.Make(pci));
            _thread = new Thread(() => Keep(kernel)) { IsBackground = true };
            _thread.Start();
        }

        /// <summary>The guest answers, unless the machine could not be started with this back-end, and the machine ends.</summary>
        internal void End()
        {
            RunningVmm? running;
            lock (_gate)
                (_stop, running) = (true, _running);
            string console = Path.Combine(program.RunFolder, "console");
            if (running != null && SpinWait.SpinUntil(() => File.Exists(console) || running.HasExited, VmmProgram.Patience) && !running.HasExited)
                Converse(console, running);
            if (running is { HasExited: false })
                running.Kill(Terminate);
            Assert.True(_thread!.Join(TimeSpan.FromSeconds(90)), "The machine does not end.");
        }

        public void Dispose()
        {
            lock (_gate)
                _stop = true;
            _running?.Dispose();
        }

        private void Converse(string path, RunningVmm running)
        {
            try
            {
                using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = VmmProgram.Patience };
                socket.Connect(new UnixDomainSocketEndPoint(path));
                byte[] answer = new byte[3];
                socket.Send("ADG"u8);
                for (int got = 0; got < answer.Length;)
                {
                    int count = socket.Receive(answer.AsSpan(got));
                    if (count == 0)
                        throw new IOException("the console was closed");
                    got += count;
                }
                if (!answer.AsSpan().SequenceEqual("BEH"u8))
                    _problem = $"the guest answered {Convert.ToHexString(answer)}";
            }
            catch (Exception e) when (e is IOException or SocketException)
            {
                // Its console is there before its back-end is asked. What it says and how it ends then is looked at below.
                if (!SpinWait.SpinUntil(() => running.HasExited, 2000))
                    _problem = $"the guest does not answer on its console: {e.Message}";
            }
        }

        private void Keep(string kernel)
        {
            while (true)
            {
                RunningVmm running;
                lock (_gate)
                {
                    if (_stop)
                        return;
                    _running?.Dispose();
                    running = _running = program.Start(
                        "run", "--kernel", kernel, "--memory", "size=" + PoliteDriver.Memory, "--serial", "socket=console", "--bus", pci ? "pci" : "mmio",
                        "--vhost-user", $"socket={socket},type=42,queue_sizes=[64],config_size={Echo.ConfigurationLength},reconnect=20");
                }
                while (!running.HasExited)
                    Thread.Sleep(5);
                try
                {
                    Outcome outcome = running.WaitForEnd();
                    // A device that its back-end does not let start is no reason to end otherwise.
                    bool refused = outcome.Code == HostError && outcome.Error.Count(c => c == '\n') == 1 && outcome.Error.StartsWith("vmm: ", StringComparison.Ordinal);
                    if (!refused && !(_stop && outcome.Code == Terminated))
                        _problem ??= outcome.ToString();
                }
                catch (Exception e) when (e is Xunit.Sdk.XunitException)
                {
                    _problem ??= e.Message;
                }
                Thread.Sleep(20);
            }
        }
    }
}
