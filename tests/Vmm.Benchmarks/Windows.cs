using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Virtio.SharedMemory;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Benchmarks;

/// <summary>
/// What one more mapping in a shared window costs while others live in it, each with a hole after it: with a memory slot for each, as we do
/// it, and with one slot over the whole window, where only the host's mapping changes. With a vCPU that stands still, and one that runs.
/// </summary>
internal static unsafe class Windows
{
    private const ulong Place = 1UL << 32;
    private const ulong Page = 4096;
    private const ulong CounterAddress = 0x18_0000;

    public static int Run(int rounds)
    {
        foreach (bool running in new[] { false, true })
        {
            foreach (int live in new[] { 1, 1000, 4000, 20_000 })
            {
                // In turn: what else the machine does hits both.
                foreach (bool perMapping in new[] { true, false })
                    Measure(live, perMapping, running, rounds);
            }
        }
        return 0;
    }

    private static void Measure(int live, bool perMapping, bool running, int rounds)
    {
        using KvmSystem kvm = KvmSystem.Open();
        using KvmVm vm = kvm.CreateVm();
        vm.SetRealModePages(0xFFFB_C000, 0xFFFB_D000);
        vm.CreateIrqchip();
        using GuestRam ram = GuestRam.Allocate([(0, Floor.RamSize)], default);
        var slots = new KvmMemorySlots(vm);
        slots.Map(0, Floor.RamSize, ram.Memory.Regions[0].HostAddress);
        KvmVcpu kvmVcpu = vm.CreateVcpu(0);
        kvmVcpu.SetCpuid(new GuestCpuid(kvm.GetSupportedCpuid(), 1, tscDeadline: true).For(0));
        Floor.Enter(kvmVcpu, ram.Memory, Code(), user: true);
        using var vcpu = new Vcpu(kvmVcpu, new AddressBus("port"), new AddressBus("MMIO"), new Failure());
        using var file = new FileDescriptor(LibC.memfd_create("windows", LibC.MFD_CLOEXEC));
        _ = LibC.ftruncate(file.Number, (long)(16 * Page));
        SharedMemoryQuota machine = SharedMemoryQuota.ForMachine();
        if (live > machine.Limit)
        {
            Console.WriteLine($"{live} live: not measured, vm.max_map_count allows {machine.Limit}");
            return;
        }
        ulong length = 2 * (ulong)(live + 1) * Page;
        using var window = new SharedMemoryWindow(0, length, slots, machine.ForDevice(live));
        if (perMapping)
            window.Place(Place);
        else
            slots.Map(Place, length, window.HostAddress);
        if (running)
            vcpu.Start();

        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < live - 1; i++)
            Check(window.TryMap(file.Number, (ulong)(i % 16) * Page, 2 * (ulong)i * Page, Page, true));
        double fill = Stopwatch.GetElapsedTime(start).TotalMilliseconds;

        var map = new List<double>();
        var unmap = new List<double>();
        ulong offset = 2 * (ulong)(live / 2) * Page;
        if (live > 1)
            Check(window.TryUnmap(offset, Page));
        ulong before = Progress(ram);
        start = Stopwatch.GetTimestamp();
        for (int i = 0; i < rounds; i++)
        {
            long a = Stopwatch.GetTimestamp();
            Check(window.TryMap(file.Number, 0, offset, Page, true));
            long b = Stopwatch.GetTimestamp();
            Check(window.TryUnmap(offset, Page));
            long c = Stopwatch.GetTimestamp();
            map.Add(Stopwatch.GetElapsedTime(a, b).TotalMicroseconds);
            unmap.Add(Stopwatch.GetElapsedTime(b, c).TotalMicroseconds);
        }
        double guest = (Progress(ram) - before) / Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        start = Stopwatch.GetTimestamp();
        window.UnmapAll();
        double all = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{live,6} live, {(perMapping ? "a slot each" : "one slot   ")}, vCPU {(running ? "running" : "stopped")}: map {Floor.Median(map):F1} us (least {map.Min():F1}), unmap {Floor.Median(unmap):F1} us (least {unmap.Min():F1}), fill {fill:F0} ms, unmap all {all:F1} ms{(running ? $", guest {guest:F0} loops/ms" : "")}"));
    }

    /// <summary>Touches each page of the RAM above its code, and counts.</summary>
    private static byte[] Code()
    {
        var a = new Assembler(64);
        Label again = a.CreateLabel(), pages = a.CreateLabel();
        a.mov(rdi, CounterAddress);
        a.Label(ref again);
        a.mov(rsi, CounterAddress + Page);
        a.mov(ecx, 64);
        a.Label(ref pages);
        a.mov(__dword_ptr[rsi], ecx);
        a.add(rsi, (int)Page);
        a.dec(ecx);
        a.jne(pages);
        a.inc(__qword_ptr[rdi]);
        a.jmp(again);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), Floor.CodeAddress);
        return stream.ToArray();
    }

    private static ulong Progress(GuestRam ram) => ram.Memory.TryRead(CounterAddress, out ulong count) ? count : 0;

    private static void Check(int error)
    {
        if (error != 0)
            throw new InvalidOperationException(LibC.strerror(error));
    }

    private sealed class Failure : IVcpuObserver
    {
        public void Ended(Vcpu vcpu, VcpuEnd end) => throw new InvalidOperationException(end.ToString());
    }
}
