using System.Diagnostics;
using System.Runtime.InteropServices;
using Vmm.Core.Boot;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;

namespace Vmm.Benchmarks;

/// <summary>The bare C program, compiled now, and guests in the form that it loads.</summary>
internal sealed unsafe class Floor : IDisposable
{
    public const ulong CodeAddress = 0x10_0000;
    public const ulong RamSize = 2 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-benchmark").FullName;

    public Floor()
    {
        Program = Compile("floor");
    }

    public string Program { get; }

    public string PathOf(string name) => Path.Combine(_folder, name);

    /// <summary>Compiles one of the C programs; the path of what comes out.</summary>
    public string Compile(string name, params string[] options)
    {
        using (Stream source = typeof(Floor).Assembly.GetManifestResourceStream(name + ".c")!)
        using (FileStream file = File.Create(PathOf(name + ".c")))
            source.CopyTo(file);
        _ = Output("cc", ["-O2", .. options, "-o", PathOf(name), PathOf(name + ".c")]);
        return PathOf(name);
    }

    /// <summary>Enters a guest in 64-bit mode, in user mode (CPL 3) where wanted.</summary>
    public static void Enter(KvmVcpu vcpu, GuestMemory memory, ReadOnlySpan<byte> code, bool user)
    {
        memory.Write(CodeAddress, code);
        ProcessorSetup.EnterGuest(vcpu, memory, new BootEntry(BootEntryMode.Long64, CodeAddress, 0));
        if (!user)
            return;
        vcpu.GetSregs(out kvm_sregs sregs);
        OpenTables(memory, sregs.cr3, level: 4);
        sregs.cs.selector = 0x33;
        sregs.ss.selector = 0x2B;
        sregs.cs.dpl = sregs.ss.dpl = 3;
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
        vcpu.SetSregs(sregs);
    }

    /// <summary>Writes the state of a guest for the C program; the path.</summary>
    public string WriteState(string name, ReadOnlySpan<byte> code, bool user)
    {
        using KvmSystem kvm = KvmSystem.Open();
        using KvmVm vm = kvm.CreateVm();
        vm.CreateIrqchip();
        using GuestRam ram = GuestRam.Allocate([(0, RamSize)], default);
        using KvmVcpu vcpu = vm.CreateVcpu(0);
        Enter(vcpu, ram.Memory, code, user);
        vcpu.GetRegs(out kvm_regs regs);
        vcpu.GetSregs(out kvm_sregs sregs);
        kvm_cpuid_entry2[] cpuid = new GuestCpuid(kvm.GetSupportedCpuid(), 1, tscDeadline: true).For(0);
        using FileStream file = File.Create(PathOf(name));
        file.Write(MemoryMarshal.AsBytes<uint>([(uint)cpuid.Length, (uint)RamSize]));
        file.Write(MemoryMarshal.AsBytes<kvm_cpuid_entry2>(cpuid));
        file.Write(MemoryMarshal.AsBytes(new Span<kvm_regs>(ref regs)));
        file.Write(MemoryMarshal.AsBytes(new Span<kvm_sregs>(ref sregs)));
        file.Write(new ReadOnlySpan<byte>(ram.Memory.Regions[0].Host, (int)RamSize));
        return PathOf(name);
    }

    /// <summary>Writes an ELF kernel (64-bit entry, no PVH note) whose code is this; the path.</summary>
    public string WriteKernel(string name, ReadOnlySpan<byte> code)
    {
        byte[] elf = new byte[0x1000 + code.Length];
        ReadOnlySpan<byte> identification = [0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1];
        identification.CopyTo(elf);
        Span<byte> header = elf.AsSpan(16);
        MemoryMarshal.Write(header, (ushort)2); // ET_EXEC
        MemoryMarshal.Write(header[2..], (ushort)62); // EM_X86_64
        MemoryMarshal.Write(header[4..], 1);
        MemoryMarshal.Write(header[8..], 0x100_0000UL);
        MemoryMarshal.Write(header[16..], 64UL);
        MemoryMarshal.Write(header[36..], (ushort)64);
        MemoryMarshal.Write(header[38..], (ushort)56);
        MemoryMarshal.Write(header[40..], (ushort)1);
        Span<byte> segment = elf.AsSpan(64);
        MemoryMarshal.Write(segment, 1); // PT_LOAD
        MemoryMarshal.Write(segment[4..], 5);
        MemoryMarshal.Write(segment[8..], 0x1000UL);
        MemoryMarshal.Write(segment[16..], 0x100_0000UL);
        MemoryMarshal.Write(segment[24..], 0x100_0000UL);
        MemoryMarshal.Write(segment[32..], (ulong)code.Length);
        MemoryMarshal.Write(segment[40..], (ulong)code.Length);
        MemoryMarshal.Write(segment[48..], 0x1000UL);
        code.CopyTo(elf.AsSpan(0x1000));
        File.WriteAllBytes(PathOf(name), elf);
        return PathOf(name);
    }

    /// <summary>Runs a program to its end; what it printed. Throws where it failed.</summary>
    public static string Output(string program, params string[] arguments)
    {
        using Process process = Start(program, arguments);
        process.StandardInput.Close();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0)
            throw new InvalidOperationException($"{program} {string.Join(' ', arguments)} ended with {process.ExitCode}: {output}{errors.Result}");
        return output;
    }

    public static Process Start(string program, params string[] arguments) =>
        Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true })!;

    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static void OpenTables(GuestMemory memory, ulong table, int level)
    {
        for (ulong at = table; at < table + 0x1000; at += 8)
        {
            if (!memory.TryRead(at, out ulong entry) || (entry & 1) == 0)
                continue;
            memory.Write(at, entry | 4);
            if (level > 1 && (entry & 0x80) == 0)
                OpenTables(memory, entry & 0x000F_FFFF_FFFF_F000, level - 1);
        }
    }
}
