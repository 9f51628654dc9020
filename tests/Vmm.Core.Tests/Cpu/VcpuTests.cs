using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Tests.Kvm;
using Vmm.Core.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Core.Tests.Cpu;

/// <summary>vCPU threads: names, jobs, pause, resume and stop, and that the exit path allocates nothing.</summary>
[Collection(nameof(KvmCollection))]
public sealed class VcpuTests
{
    private const ushort CounterPort = 0x500;
    private const ulong CounterAddress = 0xC000_0000;

    [SkippableFact]
    public void Threads_are_named_after_their_vcpu()
    {
        HostKvm.Needed();
        using (var machine = new TestMachine(vcpus: 3))
        {
            machine.Load(Payload.Long(a => a.Spin()));
            foreach (Vcpu vcpu in machine.Vcpus)
                vcpu.Start();
            foreach (Vcpu vcpu in machine.Vcpus)
                Assert.Equal($"vcpu{vcpu.Id}", vcpu.Invoke(_ => File.ReadAllText($"/proc/self/task/{LibC.gettid()}/comm").Trim()));
            Assert.Equal(["vcpu0", "vcpu1", "vcpu2"], VcpuThreads());
        }
        Assert.Empty(VcpuThreads());
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_vcpu_in_an_endless_loop_runs_jobs_and_can_be_stopped(bool user)
    {
        HostKvm.Needed();
        for (int round = 0; round < 20; round++)
        {
            using var machine = new TestMachine();
            byte[] code = Payload.Long(a => a.Spin());
            (user ? machine.LoadUser(code) : machine.Load(code)).Boot.Start();
            Assert.Equal(Payload.Address, machine.Boot.Invoke(Rip));
            machine.Boot.RequestStop();
            Within(machine.Boot.Join);
            Assert.Empty(machine.Ends);
            // After the end jobs still run, on the caller's thread.
            Assert.Equal(Payload.Address, machine.Boot.Invoke(Rip));
        }
    }

    [SkippableFact]
    public void A_halted_and_a_never_started_vcpu_run_jobs_and_can_be_stopped()
    {
        HostKvm.Needed();
        using var machine = new TestMachine(vcpus: 2);
        machine.Load(Payload.Long(a => a.hlt()));
        foreach (Vcpu vcpu in machine.Vcpus)
            vcpu.Start();
        for (int i = 0; i < 200; i++)
            Assert.Equal(i, machine.Vcpus[i % 2].Invoke(_ => i));
        Within(machine.Dispose);
    }

    [SkippableFact]
    public void Before_the_start_jobs_run_at_once()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        int thread = Environment.CurrentManagedThreadId;
        Assert.Equal(thread, machine.Boot.Invoke(_ => Environment.CurrentManagedThreadId));
        machine.Load(Payload.Long(a => a.Spin())).Boot.Start();
        Assert.NotEqual(thread, machine.Boot.Invoke(_ => Environment.CurrentManagedThreadId));
        // A job may ask for another one.
        Assert.Equal(42, machine.Boot.Invoke(_ => machine.Boot.Invoke(_ => 42)));
    }

    [SkippableFact]
    public void What_a_job_throws_reaches_whoever_asked_and_nobody_else()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Load(Payload.Long(a => a.Spin())).Boot.Start();
        VmmException error = Assert.Throws<VmmException>(() => machine.Boot.Invoke<int>(_ => throw VmmException.Host("It is so.")));
        Assert.Equal("It is so.", error.Message);
        Assert.Equal(1, machine.Boot.Invoke(_ => 1));
    }

    [SkippableFact]
    public void A_device_with_a_mistake_ends_the_machine_and_not_the_process()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Ports.Add(CounterPort, 1, new Mistaken(), "a device with a mistake");
        machine.Load(Payload.Long(a =>
        {
            a.mov(dx, CounterPort);
            a.@in(al, dx);
            a.Spin();
        })).Boot.Start();
        Within(machine.Boot.Join);
        VcpuEnd end = Assert.Single(machine.Ends);
        Assert.Equal(VcpuEndReason.HostError, end.Reason);
        Assert.Contains("IndexOutOfRangeException", end.Detail, StringComparison.Ordinal);
    }

    private sealed class Mistaken : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => data[data.Length] = 0;

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
        }
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void Jobs_see_the_guest_between_instructions_with_its_input_completed(bool mmio)
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new Counter();
        machine.Ports.Add(CounterPort, 8, device, "counter");
        machine.Mmio.Add(CounterAddress, 8, device, "counter");
        ulong read = 0, afterRead = 0;
        machine.Load(Payload.Long(a =>
        {
            a.mov(dx, CounterPort);
            a.mov(rbx, CounterAddress);
            Iced.Intel.Label again = a.CreateLabel();
            a.Label(ref again);
            a.xor(eax, eax);
            if (mmio)
                a.mov(eax, __dword_ptr[rbx]);
            else
                a.@in(eax, dx);
            if (mmio)
                a.mov(__dword_ptr[rbx + 4], eax);
            else
                a.@out(dx, eax);
            a.jmp(again);
        }));
        // Behind "mov dx, imm16" (4), "mov rbx, imm" and "xor eax, eax" (2): found by the opcode, as its lengths are the assembler's choice.
        Assert.True(machine.Memory.TryGetSpan(Payload.Address, 64, out Span<byte> code));
        read = Payload.Address + (ulong)code.IndexOf([(byte)0x31, (byte)0xC0]) + 2;
        afterRead = read + (mmio ? 2UL : 1UL);
        machine.Boot.Start();
        int sawRead = 0, sawAfter = 0;
        for (int i = 0; i < 3000; i++)
        {
            (ulong rip, ulong rax, uint reads, uint writes, uint wrong) = machine.Boot.Invoke(vcpu =>
            {
                vcpu.GetRegs(out kvm_regs regs);
                return (regs.rip, regs.rax, device.Reads, device.Writes, device.Wrong);
            });
            Assert.Equal(0u, wrong);
            if (rip == read)
            {
                // Not yet read, or KVM still holds what was read: then there would be one read more than writes.
                sawRead++;
                Assert.Equal((0UL, writes), (rax, reads));
            }
            else if (rip == afterRead)
            {
                sawAfter++;
                Assert.Equal(((ulong)reads, writes + 1), (rax, reads));
            }
        }
        Assert.True(sawRead + sawAfter > 0, "No job came near the read.");
    }

    [SkippableFact]
    public void While_paused_the_guest_stands_still_and_jobs_run()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new Counter();
        machine.Ports.Add(CounterPort, 8, device, "counter");
        machine.Load(Payload.Long(a =>
        {
            a.mov(dx, CounterPort);
            Iced.Intel.Label again = a.CreateLabel();
            a.Label(ref again);
            a.@out(dx, eax);
            a.jmp(again);
        })).Boot.Start();
        for (int round = 0; round < 50; round++)
        {
            machine.Boot.RequestPause();
            Within(machine.Boot.WaitPaused);
            uint writes = device.Writes;
            for (int i = 0; i < 20; i++)
                Assert.Equal(writes, machine.Boot.Invoke(_ => device.Writes));
            machine.Boot.Resume();
            Assert.True(SpinWait.SpinUntil(() => device.Writes > writes, TestMachine.Watchdog), "The guest did not go on.");
        }
    }

    [SkippableFact]
    public void A_pause_before_the_start_is_kept()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Load(Payload.Long(a => a.Done(3)));
        machine.Boot.RequestPause();
        machine.Boot.Start();
        Within(machine.Boot.WaitPaused);
        Assert.Equal(Payload.Address, machine.Boot.Invoke(Rip));
        Assert.False(machine.Done.IsSet);
        machine.Boot.Resume();
        Assert.Equal(3, machine.WaitDone());
    }

    [SkippableFact]
    public void Storms_of_pauses_resumes_and_jobs_lose_nothing()
    {
        HostKvm.Needed();
        const int threads = 4, operations = 2500;
        using var machine = new TestMachine(vcpus: 2);
        var device = new Counter();
        machine.Mmio.Add(CounterAddress, 8, device, "counter");
        machine.LoadUser(Payload.Long(a =>
        {
            a.mov(rbx, CounterAddress);
            Iced.Intel.Label again = a.CreateLabel();
            a.Label(ref again);
            a.mov(__dword_ptr[rbx + 4], eax);
            a.jmp(again);
        }));
        foreach (Vcpu vcpu in machine.Vcpus)
            vcpu.Start();
        int[] ran = new int[2];
        int[] asked = new int[2];
        Exception? thrown = null;
        Thread[] storm = [.. Enumerable.Range(0, threads).Select(n => new Thread(() => thrown ??= Record.Exception(() => Storm(machine, new Random(n), operations, asked, ran))))];
        foreach (Thread thread in storm)
            thread.Start();
        Within(() => Array.ForEach(storm, t => t.Join()));
        Assert.Null(thrown);
        Assert.Equal(asked, ran);
        Assert.True(asked.Sum() > 1000);
        foreach (Vcpu vcpu in machine.Vcpus)
            vcpu.Resume();
        uint writes = device.Writes;
        Assert.True(SpinWait.SpinUntil(() => device.Writes > writes, TestMachine.Watchdog), "The guest did not go on.");
    }

    [SkippableFact]
    public void A_stop_amid_a_storm_answers_every_job()
    {
        HostKvm.Needed();
        for (int round = 0; round < 60; round++)
        {
            using var machine = new TestMachine(vcpus: 2);
            byte[] code = Payload.Long(a => a.Spin());
            _ = round % 2 == 0 ? machine.LoadUser(code) : machine.Load(code);
            int[] ran = new int[2];
            int[] asked = new int[2];
            Exception? thrown = null;
            Thread[] storm = [.. Enumerable.Range(0, 3).Select(n => new Thread(() => thrown ??= Record.Exception(() => Storm(machine, new Random((round * 10) + n), 60, asked, ran))))];
            foreach (Thread thread in storm)
                thread.Start();
            foreach (Vcpu vcpu in machine.Vcpus)
                vcpu.Start();
            if (round % 3 != 0)
                Thread.Yield();
            foreach (Vcpu vcpu in machine.Vcpus)
                vcpu.RequestStop();
            Within(() =>
            {
                foreach (Vcpu vcpu in machine.Vcpus)
                    vcpu.Join();
                Array.ForEach(storm, t => t.Join());
            });
            Assert.Null(thrown);
            Assert.Equal(asked, ran);
            Assert.Empty(machine.Ends);
        }
    }

    [SkippableFact]
    public void An_end_by_itself_is_told_once_and_frees_whoever_waits()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Load(Payload.Long(a => a.ud2()));
        Thread[] waiting = [.. Enumerable.Range(0, 2).Select(n => new Thread(() => machine.Boot.Invoke(_ => n)))];
        machine.Boot.Start();
        foreach (Thread thread in waiting)
            thread.Start();
        machine.Boot.RequestPause();
        machine.Boot.Resume();
        machine.Boot.RequestPause();
        Within(machine.Boot.WaitPaused);
        machine.Boot.Resume();
        Within(() => Array.ForEach(waiting, t => t.Join()));
        Within(machine.Boot.Join);
        Assert.Single(machine.Ends);
    }

    [SkippableTheory]
    [InlineData(true, false)]
    [InlineData(false, false)]
    [InlineData(false, true)]
    public void Exits_allocate_nothing(bool port, bool user)
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        var device = new AllocationMeter();
        machine.Ports.Add(CounterPort, 8, device, "meter");
        machine.Mmio.Add(CounterAddress, 8, device, "meter");
        byte[] code = Payload.Long(a =>
        {
            a.mov(dx, CounterPort);
            a.mov(rbx, CounterAddress);
            Iced.Intel.Label again = a.CreateLabel();
            a.Label(ref again);
            if (port)
            {
                a.@out(dx, eax);
                a.@in(eax, dx);
            }
            else
            {
                a.mov(__dword_ptr[rbx], eax);
                a.mov(eax, __dword_ptr[rbx]);
            }
            a.jmp(again);
        });
        (user ? machine.LoadUser(code) : machine.Load(code)).Boot.Start();
        Assert.True(device.Finished.Wait(TestMachine.Watchdog), "Too few exits.");
        Assert.Equal(0, device.Allocated);
        VcpuCounters counters = machine.Boot.Counters;
        Assert.True((port ? counters.PortIo : counters.Mmio) >= AllocationMeter.Last);
        // The same seen by jobs: between two of them were exits, and nothing was allocated but by the jobs' own thread hand-over.
        long before = machine.Boot.Invoke(_ => ThreadAllocations.Start());
        long seen = device.Count;
        Assert.True(SpinWait.SpinUntil(() => device.Count > seen + 1000, TestMachine.Watchdog), "Too few exits.");
        Assert.Equal(0, machine.Boot.Invoke(_ => ThreadAllocations.Since(before)));
    }

    [SkippableFact]
    public void A_thousand_kicks_are_a_thousand_answers()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.LoadUser(Payload.Long(a => a.Spin())).Boot.Start();
        Within(() =>
        {
            for (int i = 0; i < 1000; i++)
                Assert.Equal(i, machine.Boot.Invoke(_ => i));
        });
        Assert.InRange(machine.Boot.Counters.Kicks, 1, long.MaxValue);
    }

    [SkippableFact]
    public void Two_hundred_machines_leave_no_thread_file_or_mapping()
    {
        HostKvm.Needed();
        for (int i = 0; i < 20; i++)
            MakeAndDrop(i);
        (int threads, int files, int maps) before = Resources();
        for (int i = 0; i < 200; i++)
            MakeAndDrop(i);
        (int threads, int files, int maps) after = Resources();
        // The runtime may make a few of its own; one a machine would be 200.
        Assert.InRange(after.threads, 0, before.threads + 10);
        Assert.InRange(after.files, 0, before.files + 10);
        Assert.InRange(after.maps, 0, before.maps + 60);
        Assert.Empty(VcpuThreads());
        Assert.DoesNotContain(Directory.GetFiles("/proc/self/fd"), fd => IsOfAMachine(new FileInfo(fd).LinkTarget ?? ""));
    }

    private static bool IsOfAMachine(string target) =>
        target == "/dev/kvm" || target.StartsWith("anon_inode:kvm", StringComparison.Ordinal) || target.StartsWith("/memfd:guest-ram", StringComparison.Ordinal);

    private static void MakeAndDrop(int i)
    {
        using var machine = new TestMachine(vcpus: 1 + (i % 2), ram: new Core.Memory.GuestRamOptions(Shared: i % 3 == 0));
        machine.Load(Payload.Long(a => a.Spin()));
        if (i % 4 == 3)
            return;
        foreach (Vcpu vcpu in machine.Vcpus)
            vcpu.Start();
        if (i % 2 == 0)
            _ = machine.Boot.Invoke(Rip);
    }

    private static void Storm(TestMachine machine, Random random, int operations, int[] asked, int[] ran)
    {
        for (int i = 0; i < operations; i++)
        {
            int which = random.Next(2);
            Vcpu vcpu = machine.Vcpus[which];
            switch (random.Next(6))
            {
                case 0:
                    vcpu.RequestPause();
                    break;
                case 1:
                    vcpu.RequestPause();
                    vcpu.WaitPaused();
                    break;
                case 2:
                case 3:
                    vcpu.Resume();
                    break;
                default:
                    Interlocked.Increment(ref asked[which]);
                    int ticket = random.Next();
                    int answer = vcpu.Invoke(_ =>
                    {
                        Interlocked.Increment(ref ran[which]);
                        return ticket;
                    });
                    Assert.Equal(ticket, answer);
                    break;
            }
        }
    }

    private static ulong Rip(Core.Kvm.KvmVcpu vcpu)
    {
        vcpu.GetRegs(out kvm_regs regs);
        return regs.rip;
    }

    /// <summary>Fails instead of hanging; the time is no measure.</summary>
    private static void Within(Action action)
    {
        Task task = Task.Factory.StartNew(action, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        Assert.True(Task.WaitAny([task], TestMachine.Watchdog) == 0, "It hangs.");
        task.GetAwaiter().GetResult();
    }

    private static string[] VcpuThreads() =>
        [.. Directory.GetDirectories("/proc/self/task").Select(t => Comm(t)).Where(c => c.StartsWith("vcpu", StringComparison.Ordinal)).Order()];

    private static string Comm(string task)
    {
        try
        {
            return File.ReadAllText(Path.Combine(task, "comm")).Trim();
        }
        catch (IOException)
        {
            // A thread of somebody else's that has just ended.
            return "";
        }
    }

    private static (int Threads, int Files, int Maps) Resources()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return (Directory.GetDirectories("/proc/self/task").Length, Directory.GetFiles("/proc/self/fd").Length, File.ReadLines("/proc/self/maps").Count());
    }

    /// <summary>Counts reads, which it answers with their number, and writes, which should bring it back.</summary>
    private sealed class Counter : IBusDevice
    {
        private uint _reads;
        private uint _writes;

        public uint Reads => Volatile.Read(ref _reads);

        public uint Writes => Volatile.Read(ref _writes);

        public uint Wrong { get; private set; }

        public void Read(ulong offset, Span<byte> data)
        {
            Volatile.Write(ref _reads, _reads + 1);
            BitConverter.TryWriteBytes(data, _reads);
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            Volatile.Write(ref _writes, _writes + 1);
            if (_reads != 0 && BitConverter.ToUInt32(data) != _reads)
                Wrong++;
        }
    }

    /// <summary>Asks, on the vCPU's thread, what was allocated there between its 200th and its last access.</summary>
    private sealed class AllocationMeter : IBusDevice
    {
        public const int Last = 4000;

        private long _count;
        private long _before;

        public long Count => Volatile.Read(ref _count);

        public long Allocated { get; private set; } = -1;

        public ManualResetEventSlim Finished { get; } = new();

        public void Read(ulong offset, Span<byte> data)
        {
            data.Clear();
            Access();
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data) => Access();

        private void Access()
        {
            Volatile.Write(ref _count, _count + 1);
            if (_count == 200)
            {
                _before = ThreadAllocations.Start();
            }
            else if (_count == Last)
            {
                Allocated = ThreadAllocations.Since(_before);
                Finished.Set();
            }
        }
    }
}
