using System.Text;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Rng;

/// <summary>The entropy device, with a real driver's side and the kernel's entropy.</summary>
public sealed unsafe class RngDeviceTests : IDisposable
{
    private readonly EventLoop _loop = new("rng-test");

    public void Dispose() => _loop.Dispose();

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Buffers_are_filled_with_bytes_that_differ(int rings)
    {
        using var device = new RngDevice(new RngConfig(), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        driver.Start();
        var seen = new HashSet<string>();
        for (int i = 0; i < 50; i++)
        {
            byte[] bytes = driver.Queues[0].Transact([], 64, RingFeatures.Of(rings).Indirect);
            Assert.Equal(64, bytes.Length);
            Assert.True(seen.Add(Convert.ToHexString(bytes)));
            // 64 bytes of which most are 0 do not come by chance.
            Assert.True(bytes.Count(b => b == 0) < 32);
        }
        Assert.Equal(50 * 64, device.Counters.Bytes);
        Assert.Equal(50, RecordedCounters.Of(device)["queue0_requests"]);
        Assert.False(driver.Host.IsResetNeeded);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_buffer_in_pieces_is_filled_in_their_order_and_nothing_beside_it(int rings)
    {
        using var device = new RngDevice(new RngConfig(Source: "/dev/urandom"), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        driver.Start();
        ulong area = driver.Arena.Allocate(1 << 20);
        Assert.True(driver.Memory.TryGetSpan(area, 1 << 20, out Span<byte> all));
        all.Clear();
        Assert.NotEqual(-1, driver.Queues[0].Add([new(area + 100, 1, true), new(area + 200, 33, true), new(area + 4090, 300, true)]));
        driver.Queues[0].Kick();
        Assert.Equal(334U, driver.Queues[0].WaitUsed().Written);
        Assert.Equal(-1, all[..100].IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, all[101..200].IndexOfAnyExcept((byte)0));
        Assert.NotEqual(-1, all[200..233].IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, all[233..4090].IndexOfAnyExcept((byte)0));
        Assert.NotEqual(-1, all[4090..4390].IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, all[4390..].IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void Of_a_large_buffer_a_part_is_filled_and_said_so()
    {
        using var device = new RngDevice(new RngConfig(), [_loop]);
        using var driver = new GuestDriver(device);
        driver.Start();
        ulong area = driver.Arena.Allocate(8 << 20);
        Assert.True(driver.Memory.TryGetSpan(area, 8 << 20, out Span<byte> all));
        all.Clear();
        for (int i = 0; i < 8; i++)
            Assert.NotEqual(-1, driver.Queues[0].Add([new(area + ((ulong)i << 20), 1 << 20, true)]));
        driver.Queues[0].Kick();
        for (int i = 0; i < 8; i++)
        {
            UsedBuffer used = driver.Queues[0].WaitUsed();
            Assert.InRange(used.Written, 1U, 64U << 10);
            int start = (int)(used.Buffers[0].Address - area);
            Assert.Equal(-1, all.Slice(start + (int)used.Written, (1 << 20) - (int)used.Written).IndexOfAnyExcept((byte)0));
        }
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_readable_buffer_breaks_the_device_until_its_reset_and_no_other(int rings)
    {
        using var device = new RngDevice(new RngConfig(), [_loop]);
        using var other = new RngDevice(new RngConfig("rng1"), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        using var otherDriver = new GuestDriver(other, RingFeatures.Of(rings));
        driver.Start();
        otherDriver.Start();
        driver.Queues[0].Add(new byte[8], writable: 64);
        driver.Queues[0].Kick();
        driver.Host.WaitUntil(() => driver.Host.IsResetNeeded);
        Assert.Equal("queue 0: a buffer for entropy has a part that the device cannot write", Assert.Single(driver.Host.ResetReasons));
        Assert.Equal(64, otherDriver.Queues[0].Transact([], 64).Length);
        Assert.Equal(0, device.Counters.Bytes);
        driver.Reset();
        driver.Start();
        driver.Queues[0].Add([], writable: 64);
        driver.Queues[0].Kick();
        // Not WaitUsed: the host remembers the old reason.
        Assert.True(SpinWait.SpinUntil(() => driver.Queues[0].TryGetUsed(out _), 30_000));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_guest_waits_for_a_source_that_has_nothing_yet(int rings)
    {
        int master, slave;
        byte* name = stackalloc byte[128];
        Assert.Equal(0, LibC.openpty(&master, &slave, name, null, null));
        using var masterFd = new FileDescriptor(master);
        using var slaveFd = new FileDescriptor(slave);
        termios raw;
        Assert.Equal(0, LibC.tcgetattr(slave, &raw));
        LibC.cfmakeraw(&raw);
        Assert.Equal(0, LibC.tcsetattr(slave, LibC.TCSANOW, &raw));
        string path = System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)name)!;
        using var device = new RngDevice(new RngConfig(Source: path), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        driver.Start();
        driver.Queues[0].Add([], writable: 16);
        driver.Queues[0].Kick();
        Assert.True(SpinWait.SpinUntil(() => device.Counters.Waits >= 3, 30_000));
        Assert.False(driver.Queues[0].TryGetUsed(out _));
        // Paused and resumed while it waits.
        driver.Restart();
        byte[] entropy = Encoding.ASCII.GetBytes("0123456789");
        fixed (byte* bytes = entropy)
            Assert.Equal(entropy.Length, LibC.write(master, bytes, (nuint)entropy.Length));
        UsedBuffer used = driver.Queues[0].WaitUsed();
        Assert.Equal(entropy, driver.Queues[0].Read(used));
    }

    [Fact]
    public void A_file_is_no_source()
    {
        string path = Path.GetTempFileName();
        try
        {
            VmmException error = Assert.Throws<VmmException>(() => new RngDevice(new RngConfig(Source: path), [_loop]));
            Assert.Equal($"Cannot take entropy from {path}: it is not a character device; name one, such as /dev/urandom or /dev/hwrng.", error.Message);
            error = Assert.Throws<VmmException>(() => new RngDevice(new RngConfig(Source: path + ".not-there"), [_loop]));
            Assert.StartsWith($"Cannot read entropy from {path}.not-there: ", error.Message, StringComparison.Ordinal);
            Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_saved_device_goes_on_as_another_object(int rings)
    {
        using var device = new RngDevice(new RngConfig(), [_loop]);
        using var next = new RngDevice(new RngConfig(), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        driver.Start();
        for (int i = 0; i < 5; i++)
            driver.Queues[0].Transact([], 64);
        var states = driver.Stop();
        next.Restore(device.Save());
        next.Activate(new VirtioActivation(driver.Features, driver.Memory, driver.Host));
        next.StartQueue(driver.Queues[0].Setup(states[0]));
        Assert.Equal(64, driver.Queues[0].Transact([], 64).Length);
        next.StopQueue(0);
        Assert.Throws<VmmException>(() => next.Restore(new ForeignState()));
    }

    [Fact]
    public void A_request_allocates_nothing()
    {
        using var device = new RngDevice(new RngConfig(), [_loop]);
        using var driver = new GuestDriver(device);
        driver.Start();
        long before = 0, allocated = -1;
        for (int i = 0; i < 2000; i++)
        {
            if (i == 1000)
                _loop.Invoke(() => before = ThreadAllocations.Start());
            // Not WaitUsed, whose host allocates on the thread that interrupts.
            driver.Queues[0].DisableInterrupts();
            driver.Queues[0].Add([], 64);
            driver.Queues[0].Kick();
            Assert.True(SpinWait.SpinUntil(() => driver.Queues[0].TryGetUsed(out _), 30_000));
        }
        _loop.Invoke(() => allocated = ThreadAllocations.Since(before));
        Assert.Equal(0, allocated);
    }

    private sealed record ForeignState() : VirtioDeviceState(1);
}
