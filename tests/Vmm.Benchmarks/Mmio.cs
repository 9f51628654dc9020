using System.Diagnostics;
using System.Globalization;
using Iced.Intel;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Benchmarks;

/// <summary>An MMIO exit and back, through the vCPU thread and a bus of 32 devices, against C. Goal: at most 1.05 times C's.</summary>
internal static class Mmio
{
    private const ulong DeviceAddress = 0xC000_0000;
    private const int Devices = 32;

    public static int Run(int rounds)
    {
        using var floor = new Floor();
        byte[] code = Code();
        foreach (bool user in new[] { false, true })
        {
            int count = user ? 5_000 : 10_000;
            string state = floor.WriteState($"mmio{user}", code, user);
            var ours = new List<double>();
            var theirs = new List<double>();
            // In turn, and whoever starts changes: what else the machine does hits both.
            for (int round = 0; round <= rounds; round++)
            {
                double c, dotnet;
                if (round % 2 == 0)
                {
                    c = Theirs(floor, state, count);
                    dotnet = Ours(code, user, count);
                }
                else
                {
                    dotnet = Ours(code, user, count);
                    c = Theirs(floor, state, count);
                }
                if (round == 0)
                    continue; // Warm-up.
                ours.Add(dotnet);
                theirs.Add(c);
            }
            double ratio = Floor.Median(ours) / Floor.Median(theirs);
            double paired = Floor.Median(ours.Zip(theirs, (o, t) => o / t));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"MMIO exit and back, CPL {(user ? 3 : 0)}, {Devices} devices on the bus, {rounds} rounds of {count}: vmm {Floor.Median(ours):F0} ns, C {Floor.Median(theirs):F0} ns, ratio of medians {ratio:F3}, median of ratios {paired:F3} (goal 1.05)"));
        }
        return 0;
    }

    private static byte[] Code()
    {
        var a = new Assembler(64);
        a.mov(rbx, DeviceAddress + (Devices / 2 * 0x1000));
        Label again = a.CreateLabel();
        a.Label(ref again);
        a.mov(__dword_ptr[rbx], eax);
        a.mov(eax, __dword_ptr[rbx + 4]);
        a.jmp(again);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), Floor.CodeAddress);
        return stream.ToArray();
    }

    private static double Theirs(Floor floor, string state, int count) =>
        double.Parse(Floor.Output(floor.Program, "mmio", state, count.ToString(CultureInfo.InvariantCulture)), CultureInfo.InvariantCulture);

    private static unsafe double Ours(byte[] code, bool user, int count)
    {
        using KvmSystem kvm = KvmSystem.Open();
        using KvmVm vm = kvm.CreateVm();
        vm.SetRealModePages(0xFFFB_C000, 0xFFFB_D000);
        vm.CreateIrqchip();
        using GuestRam ram = GuestRam.Allocate([(0, Floor.RamSize)], default);
        vm.SetMemoryRegion(0, 0, Floor.RamSize, ram.Memory.Regions[0].Host);
        var mmio = new AddressBus("MMIO");
        using var meter = new Meter(count);
        for (ulong i = 0; i < Devices; i++)
            mmio.Add(DeviceAddress + (i * 0x1000), 0x1000, i == Devices / 2 ? meter : new Meter(count), $"device {i}");
        KvmVcpu vcpu = vm.CreateVcpu(0);
        vcpu.SetCpuid(new GuestCpuid(kvm.GetSupportedCpuid(), 1, tscDeadline: true).For(0));
        Floor.Enter(vcpu, ram.Memory, code, user);
        using var running = new Vcpu(vcpu, new AddressBus("port"), mmio, new Failure());
        running.Start();
        return meter.Wait();
    }

    private sealed class Failure : IVcpuObserver
    {
        public void Ended(Vcpu vcpu, VcpuEnd end) => throw new InvalidOperationException(end.ToString());
    }

    /// <summary>Does what the C program does for an exit, and takes the time at the same ones.</summary>
    private sealed class Meter(int count) : IBusDevice, IDisposable
    {
        private const int WarmUp = 500;

        private readonly ManualResetEventSlim _done = new();
        private long _exits;
        private uint _sink;
        private long _start;
        private double _nanoseconds;

        public void Read(ulong offset, Span<byte> data)
        {
            data.Clear();
            Count();
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            _sink += data[0];
            Count();
        }

        public double Wait()
        {
            _done.Wait();
            return _nanoseconds;
        }

        public void Dispose() => _done.Dispose();

        private void Count()
        {
            _exits++;
            if (_exits == WarmUp)
            {
                _start = Stopwatch.GetTimestamp();
            }
            else if (_exits == WarmUp + count)
            {
                _nanoseconds = Stopwatch.GetElapsedTime(_start).TotalNanoseconds / count;
                _done.Set();
            }
        }
    }
}
