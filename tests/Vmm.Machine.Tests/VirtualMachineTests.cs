using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Devices.Debugging;
using Vmm.Machine.Configuration;
using Vmm.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Machine.Tests;

/// <summary>Tests that count what the whole process has: one at a time, and nothing beside them.</summary>
[CollectionDefinition(nameof(WholeProcessCollection), DisableParallelization = true)]
public sealed class WholeProcessCollection;

/// <summary>The machine as another program embeds it.</summary>
[Collection(nameof(WholeProcessCollection))]
public sealed class VirtualMachineTests : IDisposable
{
    private const int Patience = 20_000;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-machine-").FullName;

    public VirtualMachineTests() => NeedsKvm.Check();

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [SkippableFact]
    public void Fifty_machines_in_one_process_leave_nothing_behind()
    {
        VmConfig config = Config(a => { a.Print("hello"); a.PowerOff(); }) with
        {
            Cpus = new CpusConfig(Boot: 2),
            Serial = new ConsoleConfig(ConsoleBackend.File, Path.Combine(_folder, "serial")),
            DebugConsole = new ConsoleConfig(ConsoleBackend.Socket, Path.Combine(_folder, "debug")),
        };

        // The first ones make what stays: the thread pool, compiled methods.
        for (int i = 0; i < 5; i++)
            Assert.Equal(VmExitReason.PowerOff, Run(config).Reason);
        Settle();
        (int files, int threads, int guests) = (Files(), Threads(), GuestMappings());
        for (int i = 0; i < 50; i++)
            Assert.Equal(VmExitReason.PowerOff, Run(config).Reason);
        Settle();
        Assert.Equal(0, GuestMappings());
        Assert.Equal(0, guests);
        // Fewer where what an earlier test left to its finalizers went meanwhile.
        Assert.InRange(Files(), 1, files);
        Assert.InRange(Threads(), 1, threads + 2);
        Assert.Equal("hello", File.ReadAllText(Path.Combine(_folder, "serial")));
    }

    // With {fd} there is somebody to connect to at once, and no answer.
    [SkippableTheory]
    [InlineData("{fd}")]
    [InlineData("{socket}")]
    public void A_back_end_that_ends_instead_of_listening_is_an_error_that_says_so(string place)
    {
        var backEnd = new BackEndOptions(null, $"sh -c 'exit 7' {place}", false, 100, false, null);
        VmConfig config = Config(a => a.PowerOff()) with
        {
            Fs = new ConfigList<FsConfig>(new FsConfig("tag", 1, 128, backEnd, new VirtioOptions())),
            Memory = new MemoryConfig(66 * ByteSize.MiB, Shared: true),
        };
        var watch = System.Diagnostics.Stopwatch.StartNew();
        VmmException e = Assert.Throws<VmmException>(() => Run(config));
        Assert.Contains("ended with exit code 7", e.Message, StringComparison.Ordinal);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 20);
    }

    [SkippableFact]
    public void Machines_that_cannot_be_made_leave_nothing_behind()
    {
        VmConfig config = Config(a => a.PowerOff()) with { DebugConsole = new ConsoleConfig(ConsoleBackend.Socket, Path.Combine(_folder, "debug")) };
        VmConfig[] bad =
        [
            config with { Payload = config.Payload with { Initramfs = "/nowhere" } },
            config with { Memory = config.Memory with { Size = 64 * ByteSize.TiB } },
            config with { Cpus = new CpusConfig(Boot: 1_000_000) },
            config with { Serial = new ConsoleConfig(ConsoleBackend.File, "/nowhere/file") },
        ];
        void All()
        {
            foreach (VmConfig one in bad)
            {
                Assert.Throws<VmmException>(() =>
                {
                    using var machine = new VirtualMachine(one);
                    machine.Run();
                });
            }
        }

        All();
        Settle();
        (int files, int threads) = (Files(), Threads());
        for (int i = 0; i < 20; i++)
            All();
        Settle();
        // Fewer where what an earlier test left to its finalizers went meanwhile.
        Assert.InRange(Files(), 1, files);
        Assert.InRange(Threads(), 1, threads + 2);
        Assert.Equal(0, GuestMappings());
        Assert.False(File.Exists(Path.Combine(_folder, "debug")));
    }

    [SkippableFact]
    public void Stopped_before_it_runs()
    {
        using var machine = new VirtualMachine(Config(a => a.Hang()));
        machine.Stop("first");
        machine.Stop("second");
        Assert.Equal(new VmExit(VmExitReason.Stopped, "first"), machine.Run());
        machine.Stop("third");
        machine.Dispose();
        machine.Dispose();
        Assert.False(machine.PressPowerButton());
        Assert.False(machine.PressCtrlAltDelete());
        machine.Pause();
        machine.Resume();
    }

    [SkippableFact]
    public void Paused_it_stands_still_and_resumed_it_runs_on()
    {
        // Counts on the debug console for ever.
        string debug = Path.Combine(_folder, "debug");
        VmConfig config = Config(a =>
        {
            Iced.Intel.Label again = a.CreateLabel();
            a.Label(ref again);
            a.Out(0xE9, 1);
            a.jmp(again);
        }) with
        { DebugConsole = new ConsoleConfig(ConsoleBackend.File, debug) };
        using var machine = new VirtualMachine(config);
        using Running running = new(machine);
        Assert.True(SpinWait.SpinUntil(() => Length(debug) > 0, Patience));
        for (int i = 0; i < 5; i++)
        {
            machine.Pause();
            machine.Pause();
            Thread.Sleep(50);
            long still = Length(debug);
            Thread.Sleep(100);
            Assert.Equal(still, Length(debug));
            machine.Resume();
            machine.Resume();
            Assert.True(SpinWait.SpinUntil(() => Length(debug) > still, Patience));
        }

        machine.Pause();
        machine.Stop("paused");
        Assert.Equal(new VmExit(VmExitReason.Stopped, "paused"), running.Wait());
    }

    [SkippableFact]
    public void Paused_before_it_runs_it_starts_when_it_is_resumed()
    {
        string debug = Path.Combine(_folder, "debug");
        VmConfig config = Config(a => { a.Out(0xE9, 1); a.PowerOff(); }) with { DebugConsole = new ConsoleConfig(ConsoleBackend.File, debug) };
        var observer = new Observer();
        using var machine = new VirtualMachine(config, observer);
        machine.Pause();
        using Running running = new(machine);
        Thread.Sleep(300);
        Assert.Equal(0, Length(debug));
        machine.Resume();
        Assert.Equal(VmExitReason.PowerOff, running.Wait().Reason);
        Assert.Equal(1, Length(debug));
    }

    [SkippableFact]
    public void A_paused_guest_is_not_found_to_have_hung_by_its_watchdog()
    {
        // Enables the fast clock, with which both stages take 2 s together, and begins anew for ever.
        string debug = Path.Combine(_folder, "debug");
        VmConfig config = Config(a =>
        {
            SetWatchdog(a, 0x60, 1 << 2);
            Iced.Intel.Label again = a.CreateLabel();
            a.Label(ref again);
            SetWatchdog(a, 0x68, 0);
            SetWatchdog(a, 0x68, 2);
            a.Out(0xE9, 1);
            a.jmp(again);
        }) with
        { DebugConsole = new ConsoleConfig(ConsoleBackend.File, debug), Watchdog = new WatchdogConfig(WatchdogReaction.PowerOff) };
        using var machine = new VirtualMachine(config);
        using Running running = new(machine);
        Assert.True(SpinWait.SpinUntil(() => Length(debug) > 0, Patience));
        machine.Pause();
        Thread.Sleep(3000);
        machine.Stop("paused");
        Assert.Equal(new VmExit(VmExitReason.Stopped, "paused"), running.Wait());
    }

    [SkippableFact]
    public void A_guest_finds_that_its_watchdog_reset_it()
    {
        // Prints '0' and hangs with the watchdog on, until it finds the timeout bit of the reload register set.
        string debug = Path.Combine(_folder, "debug");
        VmConfig config = Config(a =>
        {
            SetPci(a, 0x10, unchecked((int)0xD000_0000));
            SetPci(a, 0x04, 2);
            a.mov(ebx, 0xD000_000C);
            a.movzx(eax, __word_ptr[rbx]);
            a.shr(eax, 9);
            a.and(eax, 1);
            a.add(eax, '0');
            a.@out(0xE9, al);
            Iced.Intel.Label off = a.CreateLabel();
            a.cmp(al, (byte)'1');
            a.je(off);
            SetWatchdog(a, 0x60, 1 << 2);
            SetWatchdog(a, 0x68, 2);
            a.Hang();
            a.Label(ref off);
            a.PowerOff();
        }) with
        {
            DebugConsole = new ConsoleConfig(ConsoleBackend.File, debug),
            Watchdog = new WatchdogConfig(WatchdogReaction.Reset),
            OnReboot = new RebootConfig(RebootAction.Restart),
        };
        using (var machine = new VirtualMachine(config))
        using (Running running = new(machine))
            Assert.Equal(VmExitReason.PowerOff, running.Wait().Reason);
        Assert.Equal("01", File.ReadAllText(debug));
    }

    [SkippableFact]
    public void Stopped_at_any_moment_while_it_restarts()
    {
        VmConfig config = Config(a => { a.Out(0x64, 0xFE); a.Hang(); }) with { OnReboot = new RebootConfig(RebootAction.Restart) };
        var random = new Random(1);
        for (int i = 0; i < 15; i++)
        {
            var observer = new Observer();
            using var machine = new VirtualMachine(config, observer);
            using Running running = new(machine);
            Assert.True(SpinWait.SpinUntil(() => observer.Restarts > 0, Patience));
            Thread.Sleep(random.Next(10));
            machine.Stop("enough");
            Assert.Equal(new VmExit(VmExitReason.Stopped, "enough"), running.Wait());
        }
    }

    [SkippableFact]
    public void Everything_at_once_from_many_threads_while_it_restarts()
    {
        VmConfig config = Config(a => { a.Print("x"); a.Out(0x64, 0xFE); a.Hang(); }) with { OnReboot = new RebootConfig(RebootAction.Restart), Cpus = new CpusConfig(2) };
        var observer = new Observer();
        using var machine = new VirtualMachine(config, observer);
        using Running running = new(machine);
        bool stop = false;
        Thread Repeat(Action what)
        {
            var thread = new Thread(() =>
            {
                while (!Volatile.Read(ref stop))
                    what();
            });
            thread.Start();
            return thread;
        }

        Thread[] threads =
        [
            Repeat(() => { machine.Pause(); machine.Resume(); }),
            Repeat(() => machine.PressPowerButton()),
            Repeat(() => machine.PressCtrlAltDelete()),
            Repeat(() => _ = machine.LastConsoleLines),
        ];
        bool restarted = SpinWait.SpinUntil(() => observer.Restarts >= 10, Patience);
        Volatile.Write(ref stop, true);
        foreach (Thread thread in threads)
            Assert.True(thread.Join(Patience));
        Assert.True(restarted, $"{observer.Restarts} restarts");
        machine.Stop("enough");
        Assert.Equal(VmExitReason.Stopped, running.Wait().Reason);
    }

    [SkippableTheory]
    [InlineData(64)]
    [InlineData(300)]
    public void Many_processors(int cpus)
    {
        VmConfig config = Config(a => a.PowerOff()) with { Cpus = new CpusConfig(cpus) };
        Assert.Equal(VmExitReason.PowerOff, Run(config).Reason);
    }

    // The watchdog is device 1 where there are no others.
    private static void SetPci(Iced.Intel.Assembler a, int register, int value)
    {
        SelectPci(a, register);
        a.mov(dx, 0xCFC);
        a.mov(eax, value);
        a.@out(dx, eax);
    }

    private static void SetWatchdog(Iced.Intel.Assembler a, int register, byte value)
    {
        SelectPci(a, register);
        a.Out(0xCFC, value);
    }

    private static void SelectPci(Iced.Intel.Assembler a, int register)
    {
        a.mov(dx, 0xCF8);
        a.mov(eax, unchecked((int)0x8000_0800) | register);
        a.@out(dx, eax);
    }

    private static VmExit Run(VmConfig config)
    {
        using var machine = new VirtualMachine(config);
        return machine.Run();
    }

    private static long Length(string path) => File.Exists(path) ? new FileInfo(path).Length : 0;

    private static void Settle()
    {
        // What only a finalizer would close is a leak as well, but one of the test's libraries may have some.
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Thread.Sleep(200);
    }

    private static int Files() => Directory.GetFileSystemEntries("/proc/self/fd").Length;

    private static int Threads() => Directory.GetDirectories("/proc/self/task").Length;

    // By its size, which nothing else has.
    private static int GuestMappings() => File.ReadAllLines("/proc/self/smaps").Count(line => line.StartsWith("Size:", StringComparison.Ordinal) && line.Contains(" 67584 kB", StringComparison.Ordinal))
        + File.ReadAllLines("/proc/self/maps").Count(line => line.Contains("kvm-vcpu", StringComparison.Ordinal));

    private VmConfig Config(Action<Iced.Intel.Assembler> guest)
    {
        string kernel = Path.Combine(_folder, "kernel");
        File.WriteAllBytes(kernel, GuestProgram.Elf(guest));
        return new VmConfig
        {
            Payload = new PayloadConfig(kernel),
            Memory = new MemoryConfig(66 * ByteSize.MiB),
            Serial = new ConsoleConfig(ConsoleBackend.Null),
        };
    }

    private sealed class Running : IDisposable
    {
        private readonly VirtualMachine _machine;
        private readonly Thread _thread;
        private VmExit? _exit;

        internal Running(VirtualMachine machine)
        {
            _machine = machine;
            _thread = new Thread(() => _exit = machine.Run());
            _thread.Start();
        }

        internal VmExit Wait()
        {
            Assert.True(_thread.Join(Patience), "It did not end.");
            return _exit!;
        }

        public void Dispose()
        {
            _machine.Stop("The test is over.");
            _thread.Join(Patience);
        }
    }

    private sealed class Observer : IMachineObserver
    {
        public void DeviceTrouble(string sentence) => Assert.Fail(sentence);

        private int _restarts;

        internal int Restarts => Volatile.Read(ref _restarts);

        public void Started(LoadedKernel kernel)
        {
        }

        public void Restarting() => Interlocked.Increment(ref _restarts);

        public void BootMark(BootMark mark)
        {
        }
    }
}
