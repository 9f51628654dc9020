using FsCheck;
using FsCheck.Fluent;
using Vmm.Devices.Rtc;
using static Vmm.Devices.Rtc.CmosRegisters;

namespace Vmm.Devices.Tests.Rtc;

public sealed class CmosRtcTests : IDisposable
{
    private readonly ManualClock _clock = new();
    private readonly FakeLine _line = new();
    private readonly CmosRtc _rtc;

    public CmosRtcTests() => _rtc = new CmosRtc(new CmosConfiguration { MemoryBelow4GiB = 3UL << 30, MemoryAbove4GiB = 2UL << 30 }, _clock, _line);

    public void Dispose() => _rtc.Dispose();

    [Fact]
    public void Time_is_BCD_and_24_hours_at_first()
    {
        Assert.Equal(0x26, Get(Seconds));
        Assert.Equal(0x09, Get(Minutes));
        Assert.Equal(0x15, Get(Hours));
        Assert.Equal(7, Get(WeekDay)); // 14 March 2026 is a Saturday.
        Assert.Equal(0x14, Get(DayOfMonth));
        Assert.Equal(0x03, Get(Month));
        Assert.Equal(0x26, Get(Year));
        Assert.Equal(0x20, Get(Century));
        Assert.Equal(0, Get(A) & AUip);
        Assert.Equal(DVrt, Get(D));
    }

    [Theory]
    [InlineData(0, 0x12)]
    [InlineData(11, 0x11)]
    [InlineData(12, 0x92)]
    [InlineData(23, 0x91)]
    public void Twelve_hours_have_a_bit_for_the_afternoon(int hour, int expected)
    {
        _clock.Now = new DateTimeOffset(2026, 1, 1, hour, 0, 0, TimeSpan.Zero);
        Put(B, 0);
        Assert.Equal(expected, Get(Hours));
        Put(B, BDm);
        Assert.Equal((expected & 0x80) | ((expected & 0x7F) >> 4) * 10 + (expected & 0x0F), Get(Hours));
    }

    [Fact]
    public void Any_time_set_in_any_format_reads_back_and_goes_on()
    {
        Prop.ForAll<DateTime, int>((any, format) =>
        {
            var time = new DateTime(1900 + (any.Year % 200), any.Month, Math.Min(any.Day, 28), any.Hour, any.Minute, any.Second, DateTimeKind.Utc);
            byte b = (byte)(format & (BDm | B2412));
            Put(B, BSet | b);
            int Format(int value) => (b & BDm) != 0 ? value : value / 10 * 16 + value % 10;
            int hour = (b & B2412) != 0 ? Format(time.Hour) : Format(time.Hour % 12 == 0 ? 12 : time.Hour % 12) | (time.Hour >= 12 ? 0x80 : 0);
            (int Register, int Value)[] parts =
            [
                (Seconds, Format(time.Second)), (Minutes, Format(time.Minute)), (Hours, hour), (DayOfMonth, Format(time.Day)),
                (Month, Format(time.Month)), (Year, Format(time.Year % 100)), (Century, Format(time.Year / 100)),
            ];
            foreach ((int register, int value) in parts)
                Put(register, value);
            _clock.Advance(TimeSpan.FromSeconds(5)); // Stands still while it is set.
            bool right = parts.All(p => Get(p.Register) == p.Value);
            Put(B, b);
            right &= parts.All(p => Get(p.Register) == p.Value);
            return right && _clock.Now.UtcDateTime + _rtc.TimeOffset == time;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));
    }

    [Fact]
    public void After_the_divider_was_reset_the_first_second_is_half_as_long()
    {
        // As mc146818_set_time() does it.
        Put(B, B2412 | BSet);
        Put(A, 0x76);
        Put(Seconds, 0x10);
        Put(B, B2412);
        Put(A, 0x26);
        Assert.Equal(0x10, Get(Seconds));
        _clock.Advance(TimeSpan.FromMilliseconds(499));
        Assert.Equal(0x10, Get(Seconds));
        _clock.Advance(TimeSpan.FromMilliseconds(1));
        Assert.Equal(0x11, Get(Seconds));
    }

    [Fact]
    public void Stopping_the_clock_without_setting_it_loses_no_time()
    {
        Put(B, B2412 | BSet);
        _clock.Advance(TimeSpan.FromSeconds(3));
        Put(B, B2412);
        Assert.Equal(0x29, Get(Seconds));
    }

    [Fact]
    public void Memory_sizes_are_where_firmware_looks()
    {
        Assert.Equal(640, Get16(BaseMemory));
        Assert.Equal(0xFFFF, Get16(ExtendedMemory));
        Assert.Equal(0xFFFF, Get16(ExtendedMemoryFound));
        Assert.Equal(((3 << 10) - 16) * 16, Get16(MemoryAbove16MiB));
        Assert.Equal((2 << 10) * 16, Get16(MemoryAbove4GiB) | Get(MemoryAbove4GiB + 2) << 16);
        using var small = new CmosRtc(new CmosConfiguration { MemoryBelow4GiB = 8 << 20 }, _clock);
        small.WriteByte(0, ExtendedMemory);
        Assert.Equal(7 * 1024 & 0xFF, small.ReadByte(1));
        small.WriteByte(0, ExtendedMemory + 1);
        Assert.Equal(7 * 1024 >> 8, small.ReadByte(1));
        small.WriteByte(0, MemoryAbove16MiB);
        Assert.Equal(0, small.ReadByte(1));
    }

    [Fact]
    public void The_bit_that_masks_the_NMI_selects_no_other_register()
    {
        _rtc.WriteByte(0, 0x80 | Seconds);
        Assert.Equal(0x26, _rtc.ReadByte(1));
        Assert.Equal(0xFF, _rtc.ReadByte(0));
    }

    [Fact]
    public void Flags_without_interrupts_cost_no_timer_and_are_cleared_by_reading()
    {
        _clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(0, _clock.Armed);
        Assert.Equal(CUf | CPf, Get(C));
        Assert.Equal(0, Get(C));
        Assert.False(_line.High);
    }

    [Fact]
    public void Update_interrupts_come_once_a_second_until_read()
    {
        Put(B, B2412 | BUie);
        _clock.Advance(TimeSpan.FromMilliseconds(499));
        Assert.False(_line.High);
        _clock.Advance(TimeSpan.FromMilliseconds(2));
        Assert.True(_line.High);
        Assert.Equal(0, _clock.Armed);
        Assert.Equal(CIrqf | CUf, Get(C) & (CIrqf | CUf));
        Assert.False(_line.High);
        _clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(2, _line.RisingEdges);
        Put(B, B2412);
        Assert.False(_line.High);
        Assert.Equal(0, _clock.Armed);
    }

    [Fact]
    public void Alarm_goes_off_at_its_time()
    {
        Put(HoursAlarm, 0x16);
        Put(MinutesAlarm, 0x00);
        Put(SecondsAlarm, 0x05);
        Get(C);
        Put(B, B2412 | BAie);
        _clock.Advance(new TimeSpan(0, 50, 38));
        Assert.False(_line.High);
        _clock.Advance(TimeSpan.FromSeconds(1));
        Assert.True(_line.High);
        Assert.Equal(CIrqf | CAf, Get(C) & (CIrqf | CAf));
        _clock.Advance(TimeSpan.FromHours(23.9));
        Assert.False(_line.High);
        _clock.Advance(TimeSpan.FromHours(0.2));
        Assert.True(_line.High);
    }

    [Fact]
    public void Alarm_with_dont_care_parts_goes_off_every_minute_and_an_impossible_one_never()
    {
        Put(HoursAlarm, 0xFF);
        Put(MinutesAlarm, 0xC0);
        Put(SecondsAlarm, 0x30);
        Put(B, B2412 | BAie);
        _clock.Advance(TimeSpan.FromSeconds(4));
        Assert.True(_line.High);
        Get(C);
        _clock.Advance(TimeSpan.FromSeconds(60));
        Assert.True(_line.High);
        Put(SecondsAlarm, 0x99);
        Get(C);
        Assert.Equal(0, _clock.Armed);
        _clock.Advance(TimeSpan.FromDays(2));
        Assert.False(_line.High);
    }

    [Fact]
    public void Periodic_interrupts_come_at_their_rate()
    {
        Put(A, 0x2F); // 2 Hz.
        Put(B, B2412 | BPie);
        for (int i = 0; i < 20; i++)
        {
            _clock.Advance(TimeSpan.FromMilliseconds(500));
            Get(C);
        }
        Assert.InRange(_line.RisingEdges, 19, 20);
    }

    [Fact]
    public void A_saved_clock_comes_back_and_follows_the_host()
    {
        Put(B, B2412 | BSet);
        Put(Year, 0x41);
        Put(B, B2412 | BUie);
        Put(0x70, 0x77);
        _clock.Advance(TimeSpan.FromSeconds(1));
        CmosState state = _rtc.Save();
        var line = new FakeLine();
        using var restored = new CmosRtc(new CmosConfiguration(), _clock, line);
        restored.Restore(state);
        Assert.Equal(_line.High, line.High);
        Assert.True(line.High);
        for (int i = 0; i < Size; i++)
        {
            _rtc.WriteByte(0, i);
            restored.WriteByte(0, i);
            Assert.True(_rtc.ReadByte(1) == restored.ReadByte(1), $"Register 0x{i:x2} differs.");
        }
        Assert.False(line.High);
        _clock.Advance(TimeSpan.FromSeconds(1));
        Assert.True(line.High);
        Assert.Throws<Vmm.Core.VmmException>(() => restored.Restore(new CmosState()));
    }

    [Fact]
    public void Reset_disables_interrupts_and_keeps_the_time()
    {
        Put(Year, 0x30);
        Put(B, B2412 | BUie);
        _clock.Advance(TimeSpan.FromSeconds(1));
        _rtc.Reset();
        Assert.False(_line.High);
        Assert.Equal(0, _clock.Armed);
        Assert.Equal(0x30, Get(Year));
        Assert.Equal(B2412, Get(B));
    }

    private byte Get(int register)
    {
        _rtc.WriteByte(0, register);
        return _rtc.ReadByte(1);
    }

    private int Get16(int register) => Get(register) | Get(register + 1) << 8;

    private void Put(int register, int value)
    {
        _rtc.WriteByte(0, register);
        _rtc.WriteByte(1, value);
    }
}
