using System.Security.Cryptography;
using System.Text;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Console;

/// <summary>The console device: every byte arrives, once and in order, whoever is slow.</summary>
public sealed class ConsoleDeviceTests : IDisposable
{
    private const ulong Features = 1 | 4;
    private const int Receive = 0, Transmit = 1;

    private readonly EventLoop _loop = new("console-test");
    private readonly FakeSink _sink = new(1 << 20);

    public void Dispose() => _loop.Dispose();

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Output_and_input_pass(int rings)
    {
        using var device = new ConsoleDevice(new ConsoleConfig(), _sink, [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
        driver.Start();
        byte[] text = Encoding.ASCII.GetBytes("Welcome to Debian GNU/Linux\r\n");
        Assert.Empty(driver.Queues[Transmit].Transact(text, 0, RingFeatures.Of(rings).Indirect));
        Assert.Equal(text, _sink.TakeExactly(text.Length));
        Assert.Equal(5, device.Receive("root\n"u8));
        Assert.Equal("root\n"u8.ToArray(), driver.Queues[Receive].Transact([], 4096));
        // The other way round: the buffer waits for the input.
        driver.Queues[Receive].Add([], 3);
        driver.Queues[Receive].Add([], 4096);
        driver.Queues[Receive].Kick();
        Assert.Equal(5, device.Receive("abcde"u8));
        Assert.Equal("abc"u8.ToArray(), driver.Queues[Receive].Read(driver.Queues[Receive].WaitUsed()));
        Assert.Equal("de"u8.ToArray(), driver.Queues[Receive].Read(driver.Queues[Receive].WaitUsed()));
        RecordedCounters counters = RecordedCounters.Of(device);
        Assert.Equal(10, counters["input_bytes"]);
        Assert.Equal(text.Length, counters["output_bytes"]);
        Assert.False(driver.Host.IsResetNeeded);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    public void A_hundred_megabytes_of_output_arrive_at_somebody_slow(int rings)
    {
        const int total = 100 << 20;
        const int size = 60_000;
        var sink = new FakeSink(150_000);
        using var device = new ConsoleDevice(new ConsoleConfig(), sink, [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
        driver.Start();
        byte[] chunk = new byte[size];
        new Random(1).NextBytes(chunk);
        using var sent = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] received = [];
        var reader = new Thread(() =>
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            var random = new Random(2);
            for (int got = 0; got < total;)
            {
                byte[] bytes = sink.Take(Math.Min(total - got, random.Next(1, 200_000)));
                hash.AppendData(bytes);
                got += bytes.Length;
            }
            received = hash.GetHashAndReset();
        });
        reader.Start();
        for (int done = 0; done < total;)
        {
            int length = Math.Min(size - (done % 61), total - done);
            while (driver.Queues[Transmit].Add(chunk.AsSpan(0, length), 0) < 0 || driver.Queues[Transmit].InFlight > 40)
            {
                driver.Queues[Transmit].Kick();
                driver.Queues[Transmit].WaitUsed();
                if (driver.Queues[Transmit].InFlight <= 40)
                    break;
            }
            sent.AppendData(chunk, 0, length);
            done += length;
        }
        driver.Queues[Transmit].Kick();
        while (driver.Queues[Transmit].InFlight > 0)
            driver.Queues[Transmit].WaitUsed();
        Assert.True(reader.Join(120_000));
        Assert.Equal(sent.GetHashAndReset(), received);
        Assert.Equal(total, device.Counters.OutputBytes);
        Assert.True(device.Counters.OutputStalls > 0);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    public void Ten_megabytes_of_paste_wait_for_the_guests_buffers(int rings)
    {
        const int total = 10 << 20;
        using var device = new ConsoleDevice(new ConsoleConfig(), _sink, [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
        byte[] paste = new byte[total];
        new Random(3).NextBytes(paste);
        using var room = new AutoResetEvent(false);
        device.ReceiveSpaceAvailable = () => room.Set();
        var typist = new Thread(() =>
        {
            // As the terminal's thread does it: what was not taken waits for the device to say so.
            for (int done = 0; done < total;)
            {
                int taken = device.Receive(paste.AsSpan(done, Math.Min(total - done, 50_000)));
                done += taken;
                if (taken == 0 && !room.WaitOne(30_000))
                    return;
            }
        });
        typist.Start();
        driver.Start();
        byte[] got = new byte[total];
        int count = 0;
        for (int i = 0; i < 30; i++)
            driver.Queues[Receive].Add([], 4096);
        driver.Queues[Receive].Kick();
        while (count < total)
        {
            UsedBuffer used = driver.Queues[Receive].WaitUsed();
            driver.Queues[Receive].Read(used).CopyTo(got, count);
            count += (int)used.Written;
            driver.Queues[Receive].Add([], 4096);
            driver.Queues[Receive].Kick();
        }
        Assert.True(typist.Join(30_000));
        Assert.True(paste.AsSpan().SequenceEqual(got));
        Assert.Equal(total, device.Counters.InputBytes);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_stopped_terminal_stalls_output_and_nothing_else(int rings)
    {
        var sink = new FakeSink(1000);
        using var device = new ConsoleDevice(new ConsoleConfig(), sink, [_loop]);
        using var other = new RngDevice(new RngConfig(), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
        using var otherDriver = new GuestDriver(other, RingFeatures.Of(rings));
        driver.Start();
        otherDriver.Start();
        byte[] text = new byte[5000];
        new Random(4).NextBytes(text);
        driver.Queues[Transmit].Add(text, 0);
        driver.Queues[Transmit].Kick();
        Assert.True(SpinWait.SpinUntil(() => sink.Count == 1000, 30_000));
        device.Receive("x"u8);
        Assert.Equal("x"u8.ToArray(), driver.Queues[Receive].Transact([], 64));
        Assert.Equal(64, otherDriver.Queues[0].Transact([], 64).Length);
        Assert.False(driver.Queues[Transmit].TryGetUsed(out _));
        // Stopped, saved and gone on in another device: the rest follows, once.
        Assert.Equal(text[..600], sink.TakeExactly(600));
        var states = driver.Stop();
        using var next = new ConsoleDevice(new ConsoleConfig(), sink, [_loop]);
        next.Restore(device.Save());
        next.Activate(new VirtioActivation(driver.Features, driver.Memory, driver.Host));
        next.StartQueue(driver.Queues[Transmit].Setup(states[Transmit]));
        byte[] rest = sink.TakeExactly(4400);
        Assert.Equal(text[600..], rest);
        driver.Queues[Transmit].WaitUsed();
        next.StopQueue(Transmit);
        Assert.Equal(0, sink.Count);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Pauses_in_the_middle_of_output_lose_and_repeat_nothing(int rings)
    {
        var sink = new FakeSink(777);
        using var device = new ConsoleDevice(new ConsoleConfig(), sink, [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
        driver.Start();
        byte[] text = new byte[30_000];
        new Random(5).NextBytes(text);
        for (int i = 0; i < 30; i++)
            driver.Queues[Transmit].Add(text.AsSpan(i * 1000, 1000), 0);
        driver.Queues[Transmit].Kick();
        var got = new List<byte>();
        while (got.Count < text.Length)
        {
            got.AddRange(sink.Take(501));
            driver.Restart();
        }
        Assert.Equal(text, got);
        for (int i = 0; i < 30; i++)
            driver.Queues[Transmit].WaitUsed();
        Assert.Equal(0, sink.Count);
    }

    [Fact]
    public void A_reset_of_the_ring_forgets_the_half_written_buffer()
    {
        var sink = new FakeSink(100);
        using var device = new ConsoleDevice(new ConsoleConfig(), sink, [_loop]);
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        driver.Queues[Transmit].Transact(new byte[10], 0);
        driver.Queues[Transmit].Add(new byte[500], 0);
        driver.Queues[Transmit].Kick();
        Assert.True(SpinWait.SpinUntil(() => sink.Count == 100, 30_000));
        device.StopQueue(Transmit);
        sink.TakeExactly(100);
        driver.Queues[Transmit].Reset();
        device.StartQueue(driver.Queues[Transmit].Setup(Vmm.Virtio.Queues.VirtQueueState.Initial));
        driver.Queues[Transmit].Transact("whole"u8, 0);
        Assert.Equal("whole"u8.ToArray(), sink.TakeExactly(5));
    }

    [Fact]
    public void The_size_is_told_and_its_changes_interrupt()
    {
        using var device = new ConsoleDevice(new ConsoleConfig(Columns: 80, Rows: 25), _sink, [_loop]);
        using var driver = new GuestDriver(device, default, Features);
        Assert.Equal([80, 0, 25, 0, 1, 0, 0, 0, 0, 0, 0, 0], driver.Configuration(0, 12));
        device.SetSize(81, 25);
        Assert.Equal(0, driver.Host.ConfigurationChanges);
        driver.Start();
        Assert.Equal(1, driver.Host.ConfigurationChanges);
        device.SetSize(0x1234, 0x5678);
        Assert.Equal(2, driver.Host.ConfigurationChanges);
        device.SetSize(0x1234, 0x5678);
        Assert.Equal(2, driver.Host.ConfigurationChanges);
        for (int offset = 0; offset < 12; offset++)
            Assert.Equal(new byte[] { 0x34, 0x12, 0x78, 0x56, 1, 0, 0, 0, 0, 0, 0, 0 }[offset..], driver.Configuration(offset, 12 - offset));
        // Nothing but emerg_wr is the driver's to write.
        device.WriteConfiguration(0, new byte[8]);
        Assert.Equal(0x56781234UL, driver.ConfigurationField(0, 4));
    }

    [Fact]
    public void Emergency_writes_need_no_queue_and_never_wait()
    {
        var sink = new FakeSink(3);
        using var device = new ConsoleDevice(new ConsoleConfig(), sink, [_loop]);
        device.WriteConfiguration(8, [(byte)'a', 0, 0, 0]);
        device.WriteConfiguration(8, [(byte)'b', 0]);
        device.WriteConfiguration(8, [(byte)'c']);
        device.WriteConfiguration(9, [1, 2, 3]);
        Assert.Equal("abc"u8.ToArray(), sink.TakeExactly(3));
        for (int i = 0; i < 4; i++)
            device.WriteConfiguration(8, [(byte)'d', 0, 0, 0]);
        Assert.Equal(7, device.Counters.EmergencyWrites);
        Assert.Equal(1, device.Counters.EmergencyWritesLost);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Buffers_of_the_wrong_direction_break_the_device_until_its_reset(int rings)
    {
        using var device = new ConsoleDevice(new ConsoleConfig(), _sink, [_loop]);
        foreach (int queue in new[] { Receive, Transmit })
        {
            using var driver = new GuestDriver(device, RingFeatures.Of(rings), Features);
            driver.Start();
            device.Receive("?"u8);
            driver.Queues[queue].Add(new byte[5], 5);
            driver.Queues[queue].Kick();
            driver.Host.WaitUntil(() => driver.Host.IsResetNeeded);
            Assert.StartsWith($"queue {queue}: ", Assert.Single(driver.Host.ResetReasons), StringComparison.Ordinal);
            driver.Reset();
        }
        Assert.Equal(0, _sink.Count);
        using var honest = new GuestDriver(device, RingFeatures.Of(rings), Features);
        honest.Start();
        honest.Queues[Transmit].Transact("ok"u8, 0);
        Assert.Equal("ok"u8.ToArray(), _sink.TakeExactly(2));
        // What was typed before is still there.
        Assert.Equal("??"u8.ToArray(), honest.Queues[Receive].Transact([], 10));
        honest.Stop();
        device.Reset();
    }

    [Fact]
    public void Its_state_survives_and_nonsense_is_refused()
    {
        using var device = new ConsoleDevice(new ConsoleConfig(Columns: 100, Rows: 50), _sink, [_loop]);
        byte[] typed = new byte[ConsoleDevice.InputCapacity];
        new Random(6).NextBytes(typed);
        Assert.Equal(typed.Length, device.Receive([.. typed, 1, 2, 3]));
        using var next = new ConsoleDevice(new ConsoleConfig(), _sink, [_loop]);
        var state = (ConsoleState)device.Save();
        next.Restore(state);
        Assert.Equivalent(state, next.Save(), strict: true);
        Assert.Equal(typed, ((ConsoleState)next.Save()).Input);
        Assert.Equal(0, next.Receive([1]));
        Assert.Throws<VmmException>(() => next.Restore(new RngState()));
        Assert.Throws<VmmException>(() => next.Restore(state with { Version = 2 }));
        Assert.Throws<VmmException>(() => next.Restore(state with { Input = new byte[ConsoleDevice.InputCapacity + 1] }));
        Assert.Throws<VmmException>(() => next.Restore(state with { Input = null! }));
    }

    [Fact]
    public void Output_and_input_allocate_nothing()
    {
        using var device = new ConsoleDevice(new ConsoleConfig(), _sink, [_loop]);
        using var driver = new GuestDriver(device, default, Features);
        driver.Start();
        driver.Queues[Transmit].DisableInterrupts();
        driver.Queues[Receive].DisableInterrupts();
        long before = 0, allocated = -1;
        for (int i = 0; i < 2000; i++)
        {
            if (i == 1000)
                _loop.Invoke(() => before = ThreadAllocations.Start());
            driver.Queues[Transmit].Add("0123456789"u8, 0);
            driver.Queues[Transmit].Kick();
            Assert.True(SpinWait.SpinUntil(() => driver.Queues[Transmit].TryGetUsed(out _), 30_000));
            driver.Queues[Receive].Add([], 64);
            driver.Queues[Receive].Kick();
            device.Receive("abc"u8);
            Assert.True(SpinWait.SpinUntil(() => driver.Queues[Receive].TryGetUsed(out _), 30_000));
        }
        _loop.Invoke(() => allocated = ThreadAllocations.Since(before));
        Assert.Equal(0, allocated);
    }
}
