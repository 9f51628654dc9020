using System.Text.RegularExpressions;
using Iced.Intel;
using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Machine.Tests;

/// <summary>The machine as an object of another program: started, spoken with, waited for, gone without a trace.</summary>
[Collection(nameof(WholeProcessCollection))]
public sealed class LibraryTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-library-").FullName;
    private readonly CancellationTokenSource _patience = new(s_patience);

    public LibraryTests() => NeedsKvm.Check();

    public void Dispose()
    {
        _patience.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [SkippableFact]
    public async Task A_guest_is_waited_for_spoken_with_and_ends()
    {
        await using VirtualMachine vm = await VirtualMachine.StartAsync(Config(a => { a.Print("login: "); EchoUntil(a, (byte)'!'); a.Print("\r\nbye\r\n"); a.PowerOff(); }));
        await vm.Console.WaitForAsync("^login: $", _patience.Token);
        await vm.Console.SendAsync("root!");
        Match match = await vm.Console.WaitForAsync("(ro+t)!", _patience.Token);
        Assert.Equal("root", match.Groups[1].Value);
        await vm.Console.WaitForAsync("bye", _patience.Token);
        Assert.Equal(VmExitReason.PowerOff, (await vm.WaitForExitAsync(_patience.Token)).Reason);
        Assert.Equal("login: root!\nbye\n", vm.Console.Text);
    }

    [SkippableFact]
    public async Task Waits_that_overlap_are_each_answered()
    {
        await using VirtualMachine vm = await VirtualMachine.StartAsync(Config(a => { EchoUntil(a, (byte)'!'); a.Hang(); }));
        Task<Match> never = vm.Console.WaitForAsync("panic", _patience.Token);
        Task<Match> one = vm.Console.WaitForAsync("one", _patience.Token);
        await vm.Console.SendAsync("one");
        await one;
        Assert.False(never.IsCompleted);
        await vm.DisposeAsync();
        VmmException e = await Assert.ThrowsAsync<VmmException>(() => never);
        Assert.Contains("/panic/", e.Message, StringComparison.Ordinal);
        Assert.Contains("disposed", e.Message, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_wait_can_be_given_up()
    {
        await using VirtualMachine vm = await VirtualMachine.StartAsync(Config(a => a.Hang()));
        using var cancel = new CancellationTokenSource();
        Task<Match> wait = vm.Console.WaitForAsync("never", cancel.Token);
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => wait);
    }

    [SkippableTheory]
    [InlineData(0u)]
    [InlineData(7u)]
    [InlineData(0x12345678u)]
    public async Task A_guest_ends_with_its_own_code(uint code)
    {
        VmConfig config = Config(a => { a.mov(eax, code); a.mov(dx, 0xF4); a.@out(dx, eax); a.Hang(); }) with { DebugExit = new DebugExitConfig(true) };
        await using VirtualMachine vm = await VirtualMachine.StartAsync(config);
        VmExit exit = await vm.WaitForExitAsync(_patience.Token);
        Assert.Equal((VmExitReason.GuestExit, code), (exit.Reason, exit.GuestCode));
    }

    [SkippableFact]
    public async Task Where_its_vcpus_stand_can_be_seen_while_it_runs()
    {
        await using VirtualMachine vm = await VirtualMachine.StartAsync(Config(a => { a.mov(rbx, 0x1234_5678_9ABC); a.Print("x\n"); a.Hang(); }));
        await vm.Console.WaitForAsync("x", _patience.Token);
        string text = vm.DescribeVcpus();
        Assert.Contains("rbx 0000123456789abc", text, StringComparison.Ordinal);
        Assert.Contains("jmp", text, StringComparison.Ordinal);
        Assert.True(vm.SendNmi());
        await vm.DisposeAsync();
        Assert.Equal("", vm.DescribeVcpus());
        Assert.False(vm.SendNmi());
    }

    [SkippableFact]
    public async Task What_cannot_be_started_says_why()
    {
        VmConfig config = Config(a => a.Hang());
        await Assert.ThrowsAsync<VmmException>(() => VirtualMachine.StartAsync(config with { Payload = config.Payload with { Kernel = "/nowhere" } }));
        using var cancelled = new CancellationTokenSource();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => VirtualMachine.StartAsync(config, null, cancelled.Token));
    }

    [SkippableFact]
    public async Task A_machine_without_this_console_says_so()
    {
        await using VirtualMachine vm = await VirtualMachine.StartAsync(Config(a => a.Hang()) with { Serial = new ConsoleConfig(ConsoleBackend.Null) });
        VmmException e = await Assert.ThrowsAsync<VmmException>(() => vm.Console.SendAsync("x"));
        Assert.Contains("--serial", e.Message, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_thousand_starts_leave_nothing_behind()
    {
        VmConfig ends = Config(a => { a.Print("up\n"); a.PowerOff(); });
        VmConfig stays = Config(a => { a.Print("up\n"); a.Hang(); });
        for (int i = 0; i < 20; i++)
            await StartOnce(ends, stays, i);
        Settle();
        (int files, int threads, int mappings) = Counts();
        for (int i = 0; i < 1000; i++)
            await StartOnce(ends, stays, i);
        Settle();
        (int filesNow, int threadsNow, int mappingsNow) = Counts();
        // Fewer where what an earlier test left to its finalizers went meanwhile.
        Assert.InRange(filesNow, 1, files);
        Assert.InRange(threadsNow, 1, threads + 3);
        // The runtime maps for itself what it likes, but not with every start.
        Assert.InRange(mappingsNow, 1, mappings + 50);
        Assert.DoesNotContain(File.ReadLines("/proc/self/maps"), line => line.Contains("kvm-vcpu", StringComparison.Ordinal));
    }

    /// <summary>One of: runs to its end, is disposed of while it runs, is cancelled while it starts, cannot be made.</summary>
    private async Task StartOnce(VmConfig ends, VmConfig stays, int number)
    {
        switch (number % 4)
        {
            case 0:
                await using (VirtualMachine vm = await VirtualMachine.StartAsync(ends))
                {
                    await vm.Console.WaitForAsync("up", _patience.Token);
                    Assert.Equal(VmExitReason.PowerOff, (await vm.WaitForExitAsync()).Reason);
                }
                break;
            case 1:
                await using (VirtualMachine vm = await VirtualMachine.StartAsync(stays))
                    _ = vm.Console.WaitForAsync("never");
                break;
            case 2:
                using (var cancel = new CancellationTokenSource())
                {
                    Task<VirtualMachine> start = VirtualMachine.StartAsync(stays, null, cancel.Token);
                    if (number % 8 == 2)
                        Thread.SpinWait(number * 50);
                    await cancel.CancelAsync();
                    try
                    {
                        await (await start).DisposeAsync();
                    }
                    catch (OperationCanceledException)
                    {
                        // In time.
                    }
                }
                break;
            default:
                await Assert.ThrowsAsync<VmmException>(() => VirtualMachine.StartAsync(stays with { Payload = stays.Payload with { Initramfs = "/nowhere" } }));
                break;
        }
    }

    private VmConfig Config(Action<Assembler> build)
    {
        string kernel = Path.Combine(_folder, $"kernel-{Guid.NewGuid():n}");
        File.WriteAllBytes(kernel, GuestProgram.Elf(build));
        return new VmConfig { Payload = new PayloadConfig { Kernel = kernel }, Memory = new MemoryConfig(64 * ByteSize.MiB) };
    }

    private static void EchoUntil(Assembler a, byte last)
    {
        Label wait = a.CreateLabel();
        a.Label(ref wait);
        a.mov(dx, 0x3FD);
        a.@in(al, dx);
        a.test(al, 1);
        a.jz(wait);
        a.mov(dx, 0x3F8);
        a.@in(al, dx);
        a.@out(dx, al);
        a.cmp(al, (sbyte)last);
        a.jne(wait);
    }

    private static (int Files, int Threads, int Mappings) Counts() =>
        (Directory.GetFiles("/proc/self/fd").Length, Directory.GetDirectories("/proc/self/task").Length, File.ReadLines("/proc/self/maps").Count());

    private static void Settle()
    {
        for (int i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }
}
