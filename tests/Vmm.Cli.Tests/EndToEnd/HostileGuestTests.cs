using Iced.Intel;
using Vmm.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>Guests that do to the machine whatever they can: it answers on, says nothing, and ends as they ask at last.</summary>
public sealed class HostileGuestTests : IDisposable
{
    private const int LargestLog = 64 * 1024;

    private readonly VmmProgram _vmm = new();

    public void Dispose() => _vmm.Dispose();

    [SkippableTheory]
    [InlineData(1, "null")]
    [InlineData(2, "file=debug")]
    [InlineData(3, "socket=debug")]
    [InlineData(4, "off")]
    public void Every_device_and_every_hole(int seed, string debugConsole) => Survives(HostileGuest.Make(seed, 3000), debugConsole);

    [SkippableFact]
    public void Floods_of_marks_crash_kernels_and_debug_output()
    {
        byte[] kernel = GuestProgram.Elf(a =>
        {
            Label again = a.CreateLabel();
            a.mov(ebx, 4000);
            a.Label(ref again);
            a.mov(eax, ebx);
            a.@out(0x80, al);
            a.@out(0xE9, al);
            a.Out(0x64, 0x20);
            a.Out(0x505, 2);
            a.mov(rdi, 0xC000_0000UL);
            a.mov(__byte_ptr[rdi], 123);
            a.dec(ebx);
            a.jnz(again);
            a.Print("still here\r\n");
            a.PowerOff();
        });
        Survives(kernel, "file=debug");
        Assert.Equal(4000, new FileInfo(Path.Combine(_vmm.RunFolder, "debug")).Length);
    }

    [SkippableFact]
    public void A_reset_in_every_way_at_once()
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(a =>
        {
            Label again = a.CreateLabel();
            a.Label(ref again);
            a.Out(0x64, 0xFE);
            a.Out(0xCF9, 0x0E);
            a.Out(0x505, 1);
            a.mov(dx, 0x604);
            a.mov(eax, -1);
            a.@out(dx, eax);
            a.jmp(again);
        }));
        _vmm.Run("run", "--kernel", kernel, "--serial", "null").IsOneLine(ExitCodes.Rebooted);
    }

    private void Survives(byte[] guest, string debugConsole)
    {
        NeedsKvm.Check();
        _vmm.MayRemain.UnionWith(["serial", "debug", "log"]);
        Outcome outcome = _vmm.Run(
            "run", "--kernel", _vmm.Make("kernel", guest), "--memory", "size=64M", "--serial", "file=serial", "--debug-console", debugConsole,
            "--log-file", "log", "--log-level", "trace");
        Assert.Equal(new Outcome(0, "", ""), outcome);
        Assert.EndsWith("still here\r\n", File.ReadAllText(Path.Combine(_vmm.RunFolder, "serial")), StringComparison.Ordinal);
        Assert.True(new FileInfo(Path.Combine(_vmm.RunFolder, "log")).Length < LargestLog);
    }
}
