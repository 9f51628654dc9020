using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Tests.Interop;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Console;

/// <summary>Ports beside the console: what is told of them, in which order, byte for byte; that their streams lose nothing and end.</summary>
public sealed class ConsolePortTests : IDisposable
{
    private const ulong Features = 1 | 2 | 4;
    private const int ControlReceive = 2, ControlTransmit = 3, Receive1 = 4, Transmit1 = 5, Receive2 = 6, Transmit2 = 7;
    private const ushort DeviceReady = 0, PortReady = 3, PortOpen = 6;

    private readonly EventLoop _loop = new("ports-test");
    private readonly FakeSink _sink = new(1 << 20);
    private readonly FakePort _one = new("org.one");
    private readonly FakePort _two = new("two", 1000);

    public void Dispose() => _loop.Dispose();

    [Fact]
    public void A_device_without_ports_is_what_it_was()
    {
        using var device = new ConsoleDevice(new ConsoleConfig(), _sink, [_loop]);
        Assert.Equal(0UL, device.OfferedFeatures & 2);
        Assert.Equal([(ushort)64, (ushort)64], device.QueueSizes);
    }

    [Fact]
    public void The_configuration_counts_the_ports_and_each_has_two_queues()
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        Assert.Equal(2UL, device.OfferedFeatures & 2);
        Assert.Equal(8, device.QueueSizes.Count);
        Assert.Equal(3UL, driver.ConfigurationField(4, 4));
        Assert.Throws<ArgumentOutOfRangeException>(() => new ConsoleDevice(new ConsoleConfig(), _sink, [_loop], [.. Enumerable.Range(0, 31).Select(i => new FakePort($"p{i}"))]));
        foreach (string name in new[] { "", "a/b", "a\0", new string('x', 65) })
            Assert.Throws<VmmException>(() => new FakePort(name));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_driver_is_told_of_every_port_in_order(int rings)
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
        driver.Start();
        Say(driver, uint.MaxValue, DeviceReady, 1);
        Assert.Equal("0000000001000000", Hear(driver));
        Assert.Equal("0100000001000000", Hear(driver));
        Assert.Equal("0200000001000000", Hear(driver));
        Say(driver, 0, PortReady, 1);
        Assert.Equal("0000000004000100", Hear(driver));
        Assert.Equal("0000000006000100", Hear(driver));
        Say(driver, 2, PortReady, 1);
        Assert.Equal("0200000007000100" + Convert.ToHexStringLower("two"u8), Hear(driver));
        Assert.Equal("0200000006000100", Hear(driver));
        Say(driver, 1, PortReady, 1);
        Assert.Equal("0100000007000100" + Convert.ToHexStringLower("org.one"u8), Hear(driver));
        Assert.Equal("0100000006000100", Hear(driver));
        Assert.False(driver.Host.IsResetNeeded);
    }

    [SkippableFact]
    public void Numbers_are_those_of_linux()
    {
        Skip.IfNot(CCompiler.IsThere, "there is no C compiler");
        (string Name, long Value)[] numbers =
        [
            ("1 << VIRTIO_CONSOLE_F_SIZE", (long)ConsoleProtocol.SizeFeature), ("1 << VIRTIO_CONSOLE_F_MULTIPORT", (long)ConsoleProtocol.MultiPort),
            ("1 << VIRTIO_CONSOLE_F_EMERG_WRITE", (long)ConsoleProtocol.EmergencyWrite), ("VIRTIO_CONSOLE_BAD_ID", uint.MaxValue),
            ("VIRTIO_CONSOLE_DEVICE_READY", (long)ConsoleEvent.DeviceReady), ("VIRTIO_CONSOLE_PORT_ADD", (long)ConsoleEvent.DeviceAdd),
            ("VIRTIO_CONSOLE_PORT_REMOVE", (long)ConsoleEvent.DeviceRemove), ("VIRTIO_CONSOLE_PORT_READY", (long)ConsoleEvent.PortReady),
            ("VIRTIO_CONSOLE_CONSOLE_PORT", (long)ConsoleEvent.ConsolePort), ("VIRTIO_CONSOLE_RESIZE", (long)ConsoleEvent.Resize),
            ("VIRTIO_CONSOLE_PORT_OPEN", (long)ConsoleEvent.PortOpen), ("VIRTIO_CONSOLE_PORT_NAME", (long)ConsoleEvent.PortName),
            ("sizeof(struct virtio_console_control)", ConsoleProtocol.ControlLength), ("offsetof(struct virtio_console_control, id)", ConsoleProtocol.ControlIdOffset),
            ("offsetof(struct virtio_console_control, event)", ConsoleProtocol.ControlEventOffset), ("offsetof(struct virtio_console_control, value)", ConsoleProtocol.ControlValueOffset),
            ("sizeof(struct virtio_console_config)", ConsoleProtocol.ConfigurationLength), ("offsetof(struct virtio_console_config, cols)", ConsoleProtocol.ColumnsOffset),
            ("offsetof(struct virtio_console_config, rows)", ConsoleProtocol.RowsOffset), ("offsetof(struct virtio_console_config, max_nr_ports)", ConsoleProtocol.MaximumPortsOffset),
            ("offsetof(struct virtio_console_config, emerg_wr)", ConsoleProtocol.EmergencyWriteOffset),
        ];
        string prints = string.Concat(numbers.Select(number => $"printf(\"%lld\\n\", (long long)({number.Name}));"));
        string output = CCompiler.CompileAndRun($"#include <stddef.h>\n#include <stdio.h>\n#include <linux/virtio_console.h>\nint main(void) {{ {prints} }}");
        Assert.Equal(numbers.Select(number => number.Value), output.TrimEnd().Split('\n').Select(line => long.Parse(line, System.Globalization.CultureInfo.InvariantCulture)));
    }

    [Fact]
    public void Without_a_console_the_first_port_is_not_told_of()
    {
        using var device = new ConsoleDevice(new ConsoleConfig(HasConsole: false), _sink, [_loop], [_one]);
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        Say(driver, uint.MaxValue, DeviceReady, 1);
        Assert.Equal("0100000001000000", Hear(driver));
        // Made already: it is not added again.
        Say(driver, 1, PortReady, 1);
        Assert.Equal("0100000007000100" + Convert.ToHexStringLower("org.one"u8), Hear(driver));
        Say(driver, uint.MaxValue, DeviceReady, 1);
        Assert.Equal("0100000006000100", Hear(driver));
        driver.Queues[ControlReceive].Add([], 100);
        driver.Queues[ControlReceive].Kick();
        Settle();
        Assert.False(driver.Queues[ControlReceive].TryGetUsed(out _));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Streams_pass_each_way_and_input_waits_for_the_guest_to_open_its_end(int rings)
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
        Assert.Equal(5, _one.Receive("early"u8));
        driver.Start();
        Ready(driver);
        driver.Queues[Receive1].Add([], 100);
        driver.Queues[Receive1].Kick();
        Settle();
        Assert.False(driver.Queues[Receive1].TryGetUsed(out _));
        Say(driver, 1, PortOpen, 1);
        Assert.Equal("early"u8.ToArray(), driver.Queues[Receive1].Read(driver.Queues[Receive1].WaitUsed()));
        Assert.Equal(1, _one.Opened);
        byte[] text = new byte[30_000];
        new Random(1).NextBytes(text);
        driver.Queues[Transmit1].Transact(text, 0);
        Assert.Equal(text, _one.Sink.TakeExactly(text.Length));
        // One whose sink is full does not hold up the others.
        driver.Queues[Transmit2].Add(text, 0);
        driver.Queues[Transmit2].Kick();
        Assert.True(SpinWait.SpinUntil(() => _two.Sink.Count == 1000, 30_000));
        driver.Queues[Transmit1].Transact("more"u8, 0);
        Assert.Equal("more"u8.ToArray(), _one.Sink.TakeExactly(4));
        Assert.Equal(text, _two.Sink.TakeExactly(text.Length));
        driver.Queues[Transmit2].WaitUsed();
        driver.Queues[0].Add([], 10);
        driver.Queues[0].Kick();
        device.Receive("console"u8);
        Say(driver, 0, PortOpen, 1);
        Assert.Equal("console"u8.ToArray(), driver.Queues[0].Read(driver.Queues[0].WaitUsed()));
    }

    [Fact]
    public void The_end_of_the_input_is_told_behind_the_last_of_it()
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        Ready(driver);
        _one.Receive("last words"u8);
        _one.HangUp();
        driver.Queues[ControlReceive].Add([], 100);
        driver.Queues[ControlReceive].Kick();
        Settle();
        Assert.False(driver.Queues[ControlReceive].TryGetUsed(out _));
        Say(driver, 1, PortOpen, 1);
        Settle();
        Assert.False(driver.Queues[ControlReceive].TryGetUsed(out _));
        Assert.Equal("last "u8.ToArray(), driver.Queues[Receive1].Transact([], 5));
        Settle();
        Assert.False(driver.Queues[ControlReceive].TryGetUsed(out _));
        Assert.Equal("words"u8.ToArray(), driver.Queues[Receive1].Transact([], 5));
        Assert.Equal("0100000006000000", Convert.ToHexStringLower(driver.Queues[ControlReceive].Read(driver.Queues[ControlReceive].WaitUsed())));
        // Once, until the next driver.
        Say(driver, 1, PortOpen, 0);
        Say(driver, 1, PortOpen, 1);
        driver.Queues[ControlReceive].Add([], 100);
        driver.Queues[ControlReceive].Kick();
        Settle();
        Assert.False(driver.Queues[ControlReceive].TryGetUsed(out _));
        driver.Reset();
        driver.Start();
        Ready(driver);
        Say(driver, 1, PortOpen, 1);
        Assert.Equal("0100000006000000", Hear(driver));
    }

    [Fact]
    public void The_guests_close_is_told_behind_all_that_it_wrote()
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        Ready(driver);
        Say(driver, 2, PortOpen, 1);
        driver.Queues[Transmit2].Add(new byte[3000], 0);
        driver.Queues[Transmit2].Kick();
        Assert.True(SpinWait.SpinUntil(() => _two.Sink.Count == 1000, 30_000));
        Say(driver, 2, PortOpen, 0);
        Settle();
        Assert.Equal(0, _two.Closed);
        _two.Sink.TakeExactly(2500);
        Assert.True(SpinWait.SpinUntil(() => _two.Closed == 1, 30_000));
        // What is not taken yet was there when it was told.
        Assert.InRange(_two.AtClose, 500, 1000);
        _two.Sink.TakeExactly(500);
        // A driver's reset closes what it had open.
        Say(driver, 1, PortOpen, 1);
        driver.Reset();
        Assert.Equal(1, _one.Closed);
    }

    [Fact]
    public async Task The_end_waits_until_everything_is_taken()
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        Ready(driver);
        Assert.True(device.WaitUntilWritten(CancellationToken.None));
        for (int i = 0; i < 10; i++)
            driver.Queues[Transmit2].Add(new byte[500], 0);
        // Not even a doorbell.
        using var given_up = new CancellationTokenSource(100);
        Assert.False(device.WaitUntilWritten(given_up.Token));
        Task<bool> waits = Task.Run(() => device.WaitUntilWritten(CancellationToken.None));
        Assert.Equal(4000, _two.Sink.TakeExactly(4000).Length);
        Assert.True(await waits.WaitAsync(TimeSpan.FromSeconds(30)));
        Assert.Equal(1000, _two.Sink.Count);
        driver.Stop();
        Assert.True(device.WaitUntilWritten(CancellationToken.None));
    }

    [Fact]
    public void Its_state_goes_on_in_another_device()
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        Ready(driver);
        Say(driver, 1, PortOpen, 1);
        _one.Receive("unread"u8);
        byte[] text = new byte[5000];
        new Random(2).NextBytes(text);
        driver.Queues[Transmit2].Add(text, 0);
        driver.Queues[Transmit2].Kick();
        Assert.True(SpinWait.SpinUntil(() => _two.Sink.Count == 1000, 30_000));
        var states = driver.Stop();
        var saved = (ConsoleState)device.Save();
        device.Dispose();
        using ConsoleDevice next = Device();
        next.Restore(saved);
        Assert.Equivalent(saved, next.Save(), strict: true);
        Assert.Throws<VmmException>(() => next.Restore(saved with { Ports = [] }));
        Assert.Throws<VmmException>(() => next.Restore(saved with { Ports = null! }));
        Assert.Throws<VmmException>(() => next.Restore(saved with { Ports = [saved.Ports[0], saved.Ports[1] with { Input = new byte[ConsoleDevice.InputCapacity + 1] }] }));
        next.Activate(new VirtioActivation(driver.Features, driver.Memory, driver.Host));
        foreach (int queue in new[] { Receive1, Transmit2 })
            next.StartQueue(driver.Queues[queue].Setup(states[queue]));
        Assert.Equal(text, _two.Sink.TakeExactly(5000));
        Assert.Equal("unread"u8.ToArray(), driver.Queues[Receive1].Transact([], 100));
        next.StopQueue(Receive1);
        next.StopQueue(Transmit2);
    }

    [Fact]
    public void Messages_of_any_kind_do_no_harm()
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        var random = new Random(3);
        byte[] message = new byte[40];
        for (int i = 0; i < 20_000; i++)
        {
            random.NextBytes(message);
            BinaryPrimitives.WriteUInt32LittleEndian(message, random.Next(4) == 0 ? (uint)random.Next() : (uint)random.Next(4));
            BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(4), (ushort)random.Next(10));
            BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(6), (ushort)random.Next(3));
            driver.Queues[ControlTransmit].Transact(message.AsSpan(0, random.Next(5) == 0 ? random.Next(1, 40) : 8), 0);
            if (random.Next(3) == 0)
                _one.Receive(message);
            while (driver.Queues[ControlReceive].TryGetUsed(out UsedBuffer used))
                driver.Queues[ControlReceive].Read(used);
            driver.Queues[ControlReceive].Add([], random.Next(1, 100));
            driver.Queues[ControlReceive].Kick();
        }
        Assert.False(driver.Host.IsResetNeeded);
        driver.Reset();
        driver.Start();
        Ready(driver);
        driver.Queues[Transmit1].Transact("well"u8, 0);
        Assert.Equal("well"u8.ToArray(), _one.Sink.TakeExactly(4));
    }

    [Theory]
    [InlineData(ControlTransmit)]
    [InlineData(ControlReceive)]
    [InlineData(Transmit1)]
    [InlineData(Receive2)]
    public void Buffers_of_the_wrong_direction_break_the_device_until_its_reset(int queue)
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        if (queue != ControlReceive)
            Ready(driver);
        else
            Say(driver, uint.MaxValue, DeviceReady, 1);
        _two.Receive("?"u8);
        Say(driver, 2, PortOpen, 1);
        driver.Queues[queue].Add(new byte[8], 8);
        driver.Queues[queue].Kick();
        driver.Host.WaitUntil(() => driver.Host.IsResetNeeded);
        Assert.StartsWith($"queue {queue}: ", Assert.Single(driver.Host.ResetReasons), StringComparison.Ordinal);
        // Nobody waits for what cannot come any more.
        Assert.True(device.WaitUntilWritten(CancellationToken.None));
    }

    [Fact]
    public void A_port_allocates_nothing()
    {
        using ConsoleDevice device = Device();
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        Ready(driver);
        Say(driver, 1, PortOpen, 1);
        foreach (int queue in new[] { Transmit1, Receive1, ControlTransmit })
            driver.Queues[queue].DisableInterrupts();
        long before = 0, allocated = -1;
        byte[] open = Message(1, PortOpen, 1);
        for (int i = 0; i < 2000; i++)
        {
            if (i == 1000)
                _loop.Invoke(() => before = ThreadAllocations.Start());
            driver.Queues[Transmit1].Add("0123456789"u8, 0);
            driver.Queues[Transmit1].Kick();
            Assert.True(SpinWait.SpinUntil(() => driver.Queues[Transmit1].TryGetUsed(out _), 30_000));
            driver.Queues[Receive1].Add([], 64);
            driver.Queues[Receive1].Kick();
            _one.Receive("abc"u8);
            Assert.True(SpinWait.SpinUntil(() => driver.Queues[Receive1].TryGetUsed(out _), 30_000));
            driver.Queues[ControlTransmit].Add(open, 0);
            driver.Queues[ControlTransmit].Kick();
            Assert.True(SpinWait.SpinUntil(() => driver.Queues[ControlTransmit].TryGetUsed(out _), 30_000));
        }
        _loop.Invoke(() => allocated = ThreadAllocations.Since(before));
        Assert.Equal(0, allocated);
    }

    private ConsoleDevice Device() => new(new ConsoleConfig(), _sink, [_loop], [_one, _two]);

    private static byte[] Message(uint id, ushort what, ushort value)
    {
        byte[] message = new byte[8];
        BinaryPrimitives.WriteUInt32LittleEndian(message, id);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(4), what);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(6), value);
        return message;
    }

    private static void Say(GuestDriver driver, uint id, ushort what, ushort value) => driver.Queues[ControlTransmit].Transact(Message(id, what, value), 0);

    private static string Hear(GuestDriver driver) => Convert.ToHexStringLower(driver.Queues[ControlReceive].Transact([], 100));

    /// <summary>As Linux does it; all that is told is heard.</summary>
    private static void Ready(GuestDriver driver)
    {
        Say(driver, uint.MaxValue, DeviceReady, 1);
        for (uint id = 0; id < 3; id++)
            Hear(driver);
        for (uint id = 0; id < 3; id++)
        {
            Say(driver, id, PortReady, 1);
            Hear(driver);
            Assert.EndsWith("06000100", Hear(driver), StringComparison.Ordinal);
        }
    }

    private void Settle()
    {
        for (int i = 0; i < 3; i++)
            _loop.Invoke(static () => { });
    }
}
