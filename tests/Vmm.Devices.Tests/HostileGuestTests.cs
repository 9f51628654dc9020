using Vmm.Core.Bus;
using Vmm.Devices.Debugging;
using Vmm.Devices.I8042;
using Vmm.Devices.Pci;
using Vmm.Devices.Power;
using Vmm.Devices.Pvpanic;
using Vmm.Devices.Rtc;
using Vmm.Devices.Serial;

namespace Vmm.Devices.Tests;

/// <summary>Random accesses of random sizes at random offsets: no device throws, and none allocates.</summary>
public sealed class HostileGuestTests
{
    private const int Accesses = 300_000;

    public static TheoryData<string> Devices =>
        ["uart", "rtc", "i8042 data", "i8042 command", "i8042 both", "pm", "reset", "pvpanic", "debug", "post", "ignored", "boot timer", "pci ports", "ecam"];

    [Theory]
    [MemberData(nameof(Devices))]
    public void Any_access_is_survived_without_allocation(string name)
    {
        (IBusDevice device, ulong range) = Make(name);
        var random = new Random(name.Length * 7919 + 1);
        Run(device, range, random, 20_000); // Whatever is made once is made now.
        Assert.Equal(0, ThreadAllocations.Least(() => Run(device, range, random, Accesses)));
    }

    [Theory]
    [InlineData("uart")]
    [InlineData("rtc")]
    [InlineData("i8042 both")]
    [InlineData("pm")]
    [InlineData("pci ports")]
    public void Several_vCPUs_at_once_are_survived(string name)
    {
        (IBusDevice device, ulong range) = Make(name);
        Exception? failure = null;
        Thread[] vcpus = [.. Enumerable.Range(0, 4).Select(i => new Thread(() =>
        {
            try
            {
                Run(device, range, new Random(i), 30_000);
            }
            catch (Exception e)
            {
                failure = e;
            }
        }))];
        foreach (Thread vcpu in vcpus)
            vcpu.Start();
        foreach (Thread vcpu in vcpus)
            vcpu.Join();
        Assert.Null(failure);
    }

    [Fact]
    public void Whatever_a_guest_did_can_be_saved_and_restored()
    {
        for (int seed = 0; seed < 300; seed++)
        {
            var random = new Random(seed);
            var clock = new ManualClock();
            var events = new FakeEvents();
            var line = new FakeLine();
            var uart = new Uart16550A(new SequenceSink(), line);
            using var rtc = new CmosRtc(new CmosConfiguration(), clock, line);
            var controller = new I8042Controller(line, events);
            using var pm = new AcpiPm(line, events, clock);
            uart.Receive("some input"u8);
            Run(uart, 8, random, 200);
            Run(rtc, 2, random, 200);
            Run(new BothPorts(controller), 2, random, 200);
            Run(pm, 12, random, 200);

            var uart2 = new Uart16550A(new SequenceSink(), new FakeLine());
            uart2.Restore(uart.Save());
            Compare(uart, uart2, 8);
            using var rtc2 = new CmosRtc(new CmosConfiguration(), clock, new FakeLine());
            rtc2.Restore(rtc.Save());
            for (int i = 0; i < CmosRegisters.Size; i++)
            {
                rtc.WriteByte(0, i);
                rtc2.WriteByte(0, i);
                Compare(rtc, rtc2, 2);
            }
            var controller2 = new I8042Controller(new FakeLine(), events);
            controller2.Restore(controller.Save());
            for (int i = 0; i < 40; i++)
                Compare(new BothPorts(controller), new BothPorts(controller2), 2);
            using var pm2 = new AcpiPm(new FakeLine(), events, clock);
            pm2.Restore(pm.Save());
            Compare(pm, pm2, 12);
        }
    }

    private static void Compare(IBusDevice one, IBusDevice other, ulong range)
    {
        for (ulong offset = 0; offset < range; offset++)
            Assert.Equal(one.ReadByte(offset), other.ReadByte(offset));
    }

    private static void Run(IBusDevice device, ulong range, Random random, int count)
    {
        Span<byte> buffer = stackalloc byte[8];
        for (int i = 0; i < count; i++)
        {
            Span<byte> data = buffer[..random.Next(1, 9)];
            // Mostly inside the range; at times far outside, which no bus would let through.
            ulong offset = random.Next(64) == 0 ? (ulong)random.NextInt64(long.MinValue, long.MaxValue) : (ulong)random.NextInt64((long)range);
            if (random.Next(2) == 0)
            {
                device.Read(offset, data);
            }
            else
            {
                random.NextBytes(data);
                device.Write(offset, data);
            }
        }
    }

    private static (IBusDevice Device, ulong Range) Make(string name)
    {
        var line = new FakeLine();
        var events = new FakeEvents();
        TimeProvider clock = TimeProvider.System;
        var controller = new I8042Controller(line, events);
        var bus = new PciBus();
        bus.Add(0, 0, new PciHostBridge(), "host bridge");
        bus.Add(0, 1, new PciHostBridge(), "second function");
        return name switch
        {
            "uart" => (new Uart16550A(new SequenceSink(), line), 8),
            "rtc" => (new CmosRtc(new CmosConfiguration { MemoryBelow4GiB = 1 << 30 }, clock, line), 2),
            "i8042 data" => (controller.DataPort, 1),
            "i8042 command" => (controller.CommandPort, 1),
            "i8042 both" => (new BothPorts(controller), 2),
            "pm" => (new AcpiPm(line, events, clock), 12),
            "reset" => (new ResetRegister(events), 1),
            "pvpanic" => (new PvpanicDevice(events), 1),
            "debug" => (new DebugPort(new SequenceSink()), 1),
            "post" => (new PostCodePort(new BootTimer(0, default, static _ => { }, clock)), 1),
            "ignored" => (new IgnoredPort(), 1),
            "boot timer" => (new BootTimer(0, default, static _ => { }, clock), 1),
            "pci ports" => (new PciConfigPorts(bus, new ResetRegister(events)), 8),
            _ => (new PciEcam(bus), 0x4000),
        };
    }

    private sealed class BothPorts(I8042Controller controller) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => Pick(offset).Read(0, data);

        public void Write(ulong offset, ReadOnlySpan<byte> data) => Pick(offset).Write(0, data);

        private IBusDevice Pick(ulong offset) => (offset & 1) == 0 ? controller.DataPort : controller.CommandPort;
    }
}
