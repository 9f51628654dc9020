using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Iced.Intel;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;

namespace Vmm.Machine.Reports;

/// <summary>What a vCPU was doing when it could not go on: registers, the code at its instruction pointer, the last console lines.</summary>
internal static class CrashReport
{
    private const int CodeBytesBefore = 16;
    private const int CodeBytes = 64;
    private const int Instructions = 8;
    private const int StackBytes = 2048;
    private const int StackNames = 24;
    private const ulong PageMask = 0xFFF;

    /// <summary>Builds the report. Runs on the vCPU's thread; a register that cannot be read leaves a sentence instead.</summary>
    internal static string Build(KvmVcpu vcpu, GuestMemory memory, string cause, string lastConsoleLines, IKernelSymbols? symbols = null)
    {
        var text = new StringBuilder();
        Line(text, $"--- vCPU {vcpu.Id}: {cause}");
        try
        {
            vcpu.GetRegs(out kvm_regs regs);
            vcpu.GetSregs(out kvm_sregs sregs);
            vcpu.GetVcpuEvents(out kvm_vcpu_events events);
            AppendRegisters(text, regs, sregs);
            if (events.exception_injected != 0 || events.exception_pending != 0)
                Line(text, $"exception being delivered: vector {events.exception_nr}, error code 0x{events.exception_error_code:x}");
            ulong at = sregs.cs.@base + regs.rip;
            if (Name(symbols, at) is { } function)
                Line(text, $"rip is in {function}");
            AppendCode(text, vcpu, memory, at, Bitness(sregs));
            if (symbols != null && sregs.cs.l != 0)
                AppendStack(text, vcpu, memory, regs.rsp, symbols);
        }
        catch (VmmException e)
        {
            Line(text, $"registers: {e.Message}");
        }
#pragma warning disable CA1031 // What the guest left in its registers is shown as far as it goes; a report is no reason to lose the ending itself.
        catch (Exception e)
        {
            Line(text, $"the report ends here, {e.GetType().Name}: {e.Message}");
        }
#pragma warning restore CA1031
        if (lastConsoleLines.Length > 0)
        {
            Line(text, $"--- last console lines");
            Line(text, $"{lastConsoleLines.TrimEnd()}");
        }
        Line(text, $"---");
        return text.ToString();
    }

    private static int Bitness(in kvm_sregs sregs) => sregs.cs.l != 0 ? 64 : sregs.cs.db != 0 ? 32 : 16;

    private static void AppendRegisters(StringBuilder text, in kvm_regs r, in kvm_sregs s)
    {
        Line(text, $"rip {r.rip:x16}  rsp {r.rsp:x16}  rflags {r.rflags:x8}");
        Line(text, $"rax {r.rax:x16}  rbx {r.rbx:x16}  rcx {r.rcx:x16}  rdx {r.rdx:x16}");
        Line(text, $"rsi {r.rsi:x16}  rdi {r.rdi:x16}  rbp {r.rbp:x16}  r8  {r.r8:x16}");
        Line(text, $"r9  {r.r9:x16}  r10 {r.r10:x16}  r11 {r.r11:x16}  r12 {r.r12:x16}");
        Line(text, $"r13 {r.r13:x16}  r14 {r.r14:x16}  r15 {r.r15:x16}");
        Line(text, $"cr0 {s.cr0:x16}  cr2 {s.cr2:x16}  cr3 {s.cr3:x16}  cr4 {s.cr4:x16}  efer {s.efer:x}");
        AppendSegment(text, "cs", s.cs);
        AppendSegment(text, "ss", s.ss);
        AppendSegment(text, "ds", s.ds);
        AppendSegment(text, "es", s.es);
        AppendSegment(text, "fs", s.fs);
        AppendSegment(text, "gs", s.gs);
        AppendSegment(text, "tr", s.tr);
        Line(text, $"gdt {s.gdt.@base:x16} limit {s.gdt.limit:x4}  idt {s.idt.@base:x16} limit {s.idt.limit:x4}");
    }

    private static void AppendSegment(StringBuilder text, string name, in kvm_segment s) =>
        Line(text, $"{name}  {s.selector:x4} base {s.@base:x16} limit {s.limit:x8} type {s.type:x} dpl {s.dpl} p {s.present} l {s.l} db {s.db}");

    private static void AppendCode(StringBuilder text, KvmVcpu vcpu, GuestMemory memory, ulong address, int bitness)
    {
        Span<byte> before = stackalloc byte[CodeBytesBefore];
        if (address >= CodeBytesBefore && ReadLinear(vcpu, memory, address - CodeBytesBefore, before) == CodeBytesBefore)
            Line(text, $"before rip: {Convert.ToHexStringLower(before)}");
        Span<byte> code = stackalloc byte[CodeBytes];
        int got = ReadLinear(vcpu, memory, address, code);
        if (got == 0)
        {
            Line(text, $"code: the page at 0x{address:x} is not mapped, or not in memory");
            return;
        }
        Line(text, $"code at 0x{address:x} ({bitness}-bit):");
        byte[] bytes = code[..got].ToArray();
        var decoder = Iced.Intel.Decoder.Create(bitness, new ByteArrayCodeReader(bytes), address);
        var formatter = new NasmFormatter();
        var output = new StringOutput();
        for (int i = 0; i < Instructions && decoder.IP < address + (ulong)got; i++)
        {
            Instruction instruction = decoder.Decode();
            formatter.Format(instruction, output);
            int at = (int)(instruction.IP - address);
            int length = Math.Min(instruction.Length, got - at);
            string marker = i == 0 ? "->" : "  ";
            Line(text, $"{marker} {instruction.IP:x16}  {Convert.ToHexStringLower(bytes, at, length),-24} {output.ToStringAndReset()}");
        }
    }

    /// <summary>What on the stack looks like a return address, from the innermost out; not all of it need be.</summary>
    private static void AppendStack(StringBuilder text, KvmVcpu vcpu, GuestMemory memory, ulong stack, IKernelSymbols symbols)
    {
        Span<byte> bytes = stackalloc byte[StackBytes];
        int got = ReadLinear(vcpu, memory, stack & ~7UL, bytes);
        int found = 0;
        for (int at = 0; at + 8 <= got && found < StackNames; at += 8)
        {
            if (Name(symbols, BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..])) is not { } function)
                continue;
            if (found++ == 0)
                Line(text, $"on the stack, whatever points into the kernel's code:");
            Line(text, $"   {(stack & ~7UL) + (ulong)at:x16}  {function}");
        }
    }

    private static string? Name(IKernelSymbols? symbols, ulong address) =>
        symbols != null && symbols.TryFind(address, out string name, out ulong offset) ? $"{name}+0x{offset:x}" : null;

    /// <summary>Reads guest-linear memory as far as it is mapped; how many bytes.</summary>
    private static int ReadLinear(KvmVcpu vcpu, GuestMemory memory, ulong address, Span<byte> destination)
    {
        int done = 0;
        while (done < destination.Length)
        {
            int chunk = (int)Math.Min((ulong)(destination.Length - done), PageMask + 1 - (address & PageMask));
            if (!vcpu.TryTranslate(address, out ulong physical) || !memory.TryRead(physical, destination.Slice(done, chunk)))
                break;
            done += chunk;
            address += (ulong)chunk;
        }
        return done;
    }

    private static void Line(StringBuilder text, FormattableString line) =>
        text.Append(line.ToString(CultureInfo.InvariantCulture)).Append('\n');
}
