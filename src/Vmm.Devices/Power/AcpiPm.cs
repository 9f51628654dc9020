using System.Buffers.Binary;
using Vmm.Core.Bus;
using static Vmm.Devices.Power.AcpiPmRegisters;

namespace Vmm.Devices.Power;

/// <summary>
/// ACPI fixed hardware (ACPI 6.5 section 4.8): PM1a events with a power button, PM1a control with S5, and the PM timer. The
/// machine is always in ACPI mode, so there is no SMI command port.
/// </summary>
public sealed class AcpiPm : IBusDevice, IDevice<AcpiPmState>, IDisposable
{
    private const string Name = "ACPI power management";
    private const ushort StatusBits = TimerCarry | GlobalLock | PowerButton | SleepButton | RtcAlarm | Wake;
    private const ushort EnableBits = TimerCarry | GlobalLock | PowerButton | SleepButton | RtcAlarm;
    private const ushort ControlBits = SciEnable | BusMasterReload | (7 << SleepTypeShift);

    private readonly IInterruptLine _sci;
    private readonly IGuestEventSink _events;
    private readonly TimeProvider _clock;
    private readonly ITimer _timer;
    private readonly Lock _lock = new();
    private readonly int _timerBits;
    private ushort _status, _enable, _control;
    private bool _line;

    // The timer's count is _baseTicks plus what went by since _baseTimestamp.
    private long _baseTimestamp;
    private ulong _baseTicks;

    // Count divided by half the timer's range, when TMR_STS was last looked at.
    private ulong _seenHalf;

    /// <summary>Makes the device in its reset state, with the PM timer at zero.</summary>
    /// <param name="sci">The SCI; level-triggered.</param>
    /// <param name="events">Told when the guest powers off.</param>
    /// <param name="clock">What the PM timer counts.</param>
    /// <param name="timer32Bits">32 bits of timer, with TMR_VAL_EXT in the FADT, instead of 24.</param>
    public AcpiPm(IInterruptLine sci, IGuestEventSink events, TimeProvider clock, bool timer32Bits = true)
    {
        ArgumentNullException.ThrowIfNull(sci);
        ArgumentNullException.ThrowIfNull(events);
        ArgumentNullException.ThrowIfNull(clock);
        _sci = sci;
        _events = events;
        _clock = clock;
        _timerBits = timer32Bits ? 32 : 24;
        _control = SciEnable;
        _baseTimestamp = clock.GetTimestamp();
        _timer = clock.CreateTimer(static me => ((AcpiPm)me!).OnTimer(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    /// <summary>Presses the power button: the guest's operating system is asked to shut down.</summary>
    /// <returns>False when the guest has not enabled the event, so that nothing will come of it now.</returns>
    public bool PressPowerButton()
    {
        lock (_lock)
        {
            _status |= PowerButton;
            UpdateInterrupt();
            return (_enable & PowerButton) != 0;
        }
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        Span<byte> registers = stackalloc byte[PortCount];
        lock (_lock)
        {
            ulong ticks = Ticks;
            LookAtTimer(ticks);
            BinaryPrimitives.WriteUInt16LittleEndian(registers, _status);
            BinaryPrimitives.WriteUInt16LittleEndian(registers[2..], _enable);
            BinaryPrimitives.WriteUInt16LittleEndian(registers[4..], _control);
            registers[6..8].Clear();
            BinaryPrimitives.WriteUInt32LittleEndian(registers[8..], (uint)(_timerBits == 32 ? ticks : ticks & 0xFFFFFF));
        }
        for (int i = 0; i < data.Length; i++)
        {
            ulong at = offset + (ulong)i;
            data[i] = at < PortCount ? registers[(int)at] : (byte)0xFF;
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        bool powerOff = false;
        lock (_lock)
        {
            LookAtTimer(Ticks);
            ushort enabled = _enable;
            for (int i = 0; i < data.Length; i++)
            {
                // Byte by byte: an access may be of any size (ACPI 6.5 section 4.7.3).
                ulong at = offset + (ulong)i;
                int shifted = data[i] << (int)(8 * (at & 1));
                int mask = 0xFF << (int)(8 * (at & 1));
                switch (at)
                {
                    case 0 or 1:
                        _status = (ushort)(_status & ~shifted);
                        break;
                    case 2 or 3:
                        _enable = (ushort)((_enable & ~mask) | (shifted & EnableBits));
                        break;
                    case 4 or 5:
                        _control = (ushort)(((_control & ~mask) | (shifted & mask & ControlBits)) | SciEnable);
                        powerOff |= (shifted & SleepEnable) != 0 && ((_control >> SleepTypeShift) & 7) == SleepTypeS5;
                        break;
                }
            }
            UpdateInterrupt();
            if (((enabled ^ _enable) & TimerCarry) != 0)
                Rearm();
        }
        if (powerOff)
            _events.Signal(GuestEvent.PowerOff);
    }

    /// <inheritdoc/>
    public void Reset()
    {
        lock (_lock)
        {
            _status = _enable = 0;
            _control = SciEnable;
            _baseTicks = 0;
            _baseTimestamp = _clock.GetTimestamp();
            _seenHalf = 0;
            UpdateInterrupt();
            Rearm();
        }
    }

    /// <inheritdoc/>
    public AcpiPmState Save()
    {
        lock (_lock)
        {
            ulong ticks = Ticks;
            LookAtTimer(ticks);
            return new AcpiPmState { Status = _status, Enable = _enable, Control = _control, TimerTicks = ticks };
        }
    }

    /// <inheritdoc/>
    public void Restore(AcpiPmState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion(Name, state.Version, AcpiPmState.CurrentVersion);
        lock (_lock)
        {
            _status = (ushort)(state.Status & StatusBits);
            _enable = (ushort)(state.Enable & EnableBits);
            _control = (ushort)((state.Control & ControlBits) | SciEnable);
            _baseTicks = state.TimerTicks;
            _baseTimestamp = _clock.GetTimestamp();
            _seenHalf = _baseTicks >> (_timerBits - 1);
            UpdateInterrupt();
            Rearm();
        }
    }

    /// <summary>Stops the timer.</summary>
    public void Dispose() => _timer.Dispose();

    private ulong Ticks
    {
        get
        {
            ulong elapsed = (ulong)Math.Max(_clock.GetTimestamp() - _baseTimestamp, 0);
            ulong frequency = (ulong)_clock.TimestampFrequency;
            // In two parts, so that no product overflows within thousands of years.
            return _baseTicks + elapsed / frequency * PmTimerFrequency + elapsed % frequency * PmTimerFrequency / frequency;
        }
    }

    /// <summary>Sets TMR_STS when the timer's highest bit changed since the last look (section 4.8.2.1).</summary>
    private void LookAtTimer(ulong ticks)
    {
        ulong half = ticks >> (_timerBits - 1);
        if (half == _seenHalf)
            return;
        _seenHalf = half;
        _status |= TimerCarry;
        UpdateInterrupt();
    }

    private void OnTimer()
    {
        lock (_lock)
        {
            LookAtTimer(Ticks);
            Rearm();
        }
    }

    /// <summary>Waits for the next carry while the guest wants its interrupt, which no current system does.</summary>
    private void Rearm()
    {
        TimeSpan due = Timeout.InfiniteTimeSpan;
        if ((_enable & TimerCarry) != 0)
        {
            ulong half = 1UL << (_timerBits - 1);
            ulong left = half - (Ticks & (half - 1));
            due = TimeSpan.FromMilliseconds(left * 1000 / PmTimerFrequency + 1);
        }
        try
        {
            _timer.Change(due, Timeout.InfiniteTimeSpan);
        }
        catch (ObjectDisposedException)
        {
            // The machine is going away under a guest that still runs.
        }
    }

    private void UpdateInterrupt()
    {
        bool level = (_status & _enable & EnableBits) != 0;
        if (level == _line)
            return;
        _line = level;
        _sci.Set(level);
    }
}
