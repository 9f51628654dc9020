using Vmm.Core.Bus;
using Vmm.Devices.Power;
using static Vmm.Devices.Power.AcpiPmRegisters;

namespace Vmm.Devices.Tests.Power;

public sealed class AcpiPmTests : IDisposable
{
    private const ulong Status = 0, Enable = 2, Control = 4, PmTimer = 8;
    private readonly FakeLine _sci = new();
    private readonly FakeEvents _events = new();
    private readonly ManualClock _clock = new();
    private readonly AcpiPm _pm;

    public AcpiPmTests() => _pm = new AcpiPm(_sci, _events, _clock);

    public void Dispose() => _pm.Dispose();

    [Fact]
    public void The_power_button_raises_the_SCI_until_its_status_is_cleared()
    {
        Assert.False(_pm.PressPowerButton());
        Assert.False(_sci.High);
        _pm.WriteUInt16(Enable, PowerButton);
        Assert.True(_sci.High);
        Assert.Equal(PowerButton, _pm.ReadUInt16(Status));
        _pm.WriteUInt16(Status, 0);
        Assert.True(_sci.High);
        _pm.WriteUInt16(Status, PowerButton);
        Assert.False(_sci.High);
        Assert.Equal(0, _pm.ReadUInt16(Status));
        Assert.True(_pm.PressPowerButton());
        Assert.True(_sci.High);
        _pm.WriteByte(Enable + 1, 0); // Byte accesses count as well.
        Assert.False(_sci.High);
    }

    [Fact]
    public void S5_powers_off_and_no_other_sleep_type_does()
    {
        for (int type = 0; type < 8; type++)
            _pm.WriteUInt16(Control, (type << SleepTypeShift) | (type == SleepTypeS5 ? 0 : SleepEnable));
        Assert.Empty(_events.Seen);
        _pm.WriteUInt16(Control, (SleepTypeS5 << SleepTypeShift) | SleepEnable);
        Assert.Equal([GuestEvent.PowerOff], _events.Seen);
        Assert.Equal((SleepTypeS5 << SleepTypeShift) | SciEnable, _pm.ReadUInt16(Control));
        _pm.WriteByte(Control + 1, 0x34);
        Assert.Equal(2, _events.Count);
    }

    [Fact]
    public void The_machine_cannot_leave_ACPI_mode()
    {
        _pm.WriteUInt16(Control, 0);
        Assert.Equal(SciEnable, _pm.ReadUInt16(Control));
    }

    [Fact]
    public void The_timer_counts_at_its_rate_and_wraps_at_its_width()
    {
        Assert.Equal(0u, _pm.ReadUInt32(PmTimer));
        _clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal((uint)PmTimerFrequency, _pm.ReadUInt32(PmTimer));
        _clock.Advance(TimeSpan.FromSeconds(9999));
        Assert.Equal(unchecked((uint)(PmTimerFrequency * 10000L)), _pm.ReadUInt32(PmTimer));

        using var narrow = new AcpiPm(_sci, _events, _clock, timer32Bits: false);
        _clock.Advance(TimeSpan.FromSeconds(10));
        Assert.Equal(PmTimerFrequency * 10u & 0xFFFFFF, narrow.ReadUInt32(PmTimer));
    }

    [Fact]
    public void The_timers_carry_is_a_status_and_when_enabled_an_interrupt()
    {
        using var narrow = new AcpiPm(_sci, _events, _clock, timer32Bits: false);
        _clock.Advance(TimeSpan.FromSeconds(2.3)); // The highest of 24 bits changes every 2.343 s.
        Assert.Equal(0, narrow.ReadUInt16(Status));
        _clock.Advance(TimeSpan.FromSeconds(0.1));
        Assert.Equal(TimerCarry, narrow.ReadUInt16(Status));
        narrow.WriteUInt16(Status, TimerCarry);
        Assert.Equal(0, _clock.Armed);
        narrow.WriteUInt16(Enable, TimerCarry);
        _clock.Advance(TimeSpan.FromSeconds(2.4));
        Assert.True(_sci.High);
    }

    [Fact]
    public void A_saved_device_comes_back_with_its_timer_where_it_was()
    {
        _pm.WriteUInt16(Enable, PowerButton | GlobalLock);
        _pm.PressPowerButton();
        _pm.WriteUInt16(Control, (3 << SleepTypeShift) | BusMasterReload);
        _clock.Advance(TimeSpan.FromSeconds(12.25));
        AcpiPmState state = _pm.Save();
        byte[] before = new byte[12], after = new byte[12];
        for (int i = 0; i < 12; i++)
            before[i] = _pm.ReadByte((ulong)i);
        _clock.Advance(TimeSpan.FromHours(1));
        var sci = new FakeLine();
        using var restored = new AcpiPm(sci, _events, _clock);
        restored.Restore(state);
        for (int i = 0; i < 12; i++)
            after[i] = restored.ReadByte((ulong)i);
        Assert.Equal(before, after);
        Assert.True(sci.High);
        Assert.Equal(state, restored.Save());
        restored.Reset();
        Assert.False(sci.High);
        Assert.Equal(SciEnable, restored.ReadUInt16(Control));
    }

    [Theory]
    [InlineData(0x06)]
    [InlineData(0x0E)]
    [InlineData(0x04)]
    public void The_reset_register_resets(int value)
    {
        var register = new ResetRegister(_events);
        register.WriteByte(0, value & 0x02);
        Assert.Empty(_events.Seen);
        register.WriteByte(0, value);
        Assert.Equal([GuestEvent.Reset], _events.Seen);
        ResetRegisterState state = register.Save();
        var restored = new ResetRegister(_events);
        restored.Restore(state);
        Assert.Equal(value & 0x0A, restored.ReadByte(0));
        restored.Reset();
        Assert.Equal(0, restored.ReadByte(0));
    }
}
