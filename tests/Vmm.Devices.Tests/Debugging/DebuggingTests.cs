using Vmm.Devices.Debugging;

namespace Vmm.Devices.Tests.Debugging;

public sealed class DebuggingTests
{
    [Fact]
    public void The_debug_port_writes_bytes_and_reads_its_number()
    {
        var sink = new ListSink();
        var port = new DebugPort(sink);
        foreach (byte value in "boot"u8)
            port.WriteByte(0, value);
        Assert.Equal("boot"u8.ToArray(), sink.Bytes);
        Assert.Equal(0xE9, port.ReadByte(0));
    }

    [Fact]
    public void Both_kinds_of_boot_marks_come_with_their_times_and_once()
    {
        var clock = new ManualClock();
        List<BootMark> marks = [];
        TimeSpan cpu = TimeSpan.FromMilliseconds(7);
        long start = clock.GetTimestamp();
        var timer = new BootTimer(start, TimeSpan.FromMilliseconds(5), marks.Add, clock, () => cpu);
        var port = new PostCodePort(timer);
        clock.Advance(TimeSpan.FromMilliseconds(30));
        port.WriteByte(0, 0x40);
        port.WriteByte(0, 0x40);
        cpu += TimeSpan.FromMilliseconds(10);
        clock.Advance(TimeSpan.FromMilliseconds(20));
        port.WriteByte(0, 0x41);
        timer.WriteByte(0, 122);
        timer.WriteByte(0, 123);
        timer.WriteByte(0, 123);
        port.WriteByte(0, 123);
        Assert.Equal(
            [
                new BootMark(BootPhase.Kernel, 0x40, TimeSpan.FromMilliseconds(30), TimeSpan.FromMilliseconds(2)),
                new BootMark(BootPhase.Kernel, 0x41, TimeSpan.FromMilliseconds(50), TimeSpan.FromMilliseconds(12)),
                new BootMark(BootPhase.Booted, 123, TimeSpan.FromMilliseconds(50), TimeSpan.FromMilliseconds(12)),
                new BootMark(BootPhase.UserSpace, 123, TimeSpan.FromMilliseconds(50), TimeSpan.FromMilliseconds(12)),
            ],
            marks);
        Assert.Equal(123, port.LastCode);

        var restored = new PostCodePort();
        restored.Restore(port.Save());
        Assert.Equal(123, restored.ReadByte(0));

        port.Reset();
        Assert.Equal(0, port.ReadByte(0));
        clock.Advance(TimeSpan.FromMilliseconds(1));
        port.WriteByte(0, 0x40);
        Assert.Equal(TimeSpan.FromMilliseconds(1), marks[^1].Wall);
    }

    [Theory]
    [InlineData(0x00, BootPhase.Firmware)]
    [InlineData(0x1F, BootPhase.Firmware)]
    [InlineData(0x20, BootPhase.Bootloader)]
    [InlineData(0x5F, BootPhase.Kernel)]
    [InlineData(0x60, BootPhase.UserSpace)]
    [InlineData(0x80, BootPhase.Custom)]
    public void Codes_belong_to_phases(int code, BootPhase phase) => Assert.Equal(phase, BootTimer.PhaseOf((byte)code));

    [Fact]
    public void The_default_processor_time_is_this_processes()
    {
        List<BootMark> marks = [];
        var timer = new BootTimer(TimeProvider.System.GetTimestamp(), TimeSpan.Zero, marks.Add, TimeProvider.System);
        timer.WriteByte(0, 123);
        Assert.InRange(marks[0].Cpu, TimeSpan.FromMilliseconds(1), TimeSpan.FromHours(10));
    }
}
