using Vmm.Core.Bus;
using static Vmm.Devices.Rtc.CmosRegisters;

namespace Vmm.Devices.Rtc;

/// <summary>
/// An MC146818 clock with its battery-backed RAM. The time comes from a <see cref="TimeProvider"/> plus an offset that the guest
/// moves by setting its clock. Nothing runs while no interrupt of it is enabled; then one timer does, and no thread of its own.
/// </summary>
public sealed class CmosRtc : IBusDevice, IDevice<CmosState>, IDisposable
{
    private const string Name = "CMOS clock";

    // Divider counting from the 32.768 kHz crystal, 1024 Hz periodic rate: what PC firmware leaves behind.
    private const byte DefaultA = 0x26;
    private const byte DividerReset = 0x60;

    // The pool's timers have a resolution of 1 ms; faster periodic rates (the chip goes up to 8192 Hz) are delivered at this one.
    private static readonly TimeSpan s_shortestPeriod = TimeSpan.FromMilliseconds(1);

    private readonly TimeProvider _clock;
    private readonly IInterruptLine? _interrupt;
    private readonly ITimer? _timer;
    private readonly Lock _lock = new();
    private readonly byte[] _ram = new byte[Size];
    private int _index;
    private TimeSpan _offset;
    private bool _timeWritten, _dividerWasReset, _line, _armed;

    // The second up to which update and alarm events were looked at, and the time of the last periodic one, both guest time.
    private long _seenSecond;
    private long _lastPeriodTicks;

    /// <summary>Makes a clock.</summary>
    /// <param name="configuration">Memory sizes to report and the clock's offset.</param>
    /// <param name="clock">Where the time comes from.</param>
    /// <param name="interrupt">IRQ 8, or null for a clock that only sets its flags.</param>
    public CmosRtc(CmosConfiguration configuration, TimeProvider clock, IInterruptLine? interrupt = null)
    {
        ArgumentNullException.ThrowIfNull(configuration);
        ArgumentNullException.ThrowIfNull(clock);
        _clock = clock;
        _interrupt = interrupt;
        _offset = configuration.TimeOffset;
        _ram[A] = DefaultA;
        _ram[B] = B2412;
        _ram[D] = DVrt;
        SetMemory(configuration);
        RestartEvents();
        if (interrupt is not null)
            _timer = clock.CreateTimer(static me => ((CmosRtc)me!).OnTimer(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    /// <summary>How far the guest's clock is ahead of the host's UTC.</summary>
    public TimeSpan TimeOffset
    {
        get
        {
            lock (_lock)
                return _offset;
        }
        set
        {
            lock (_lock)
            {
                _offset = value;
                RestartEvents();
                Rearm();
            }
        }
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            // The index port cannot be read.
            if (offset + (ulong)i != 1)
            {
                data[i] = 0xFF;
                continue;
            }
            lock (_lock)
                data[i] = ReadRegister();
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            ulong port = offset + (ulong)i;
            if (port >= PortCount)
                return;
            lock (_lock)
            {
                if (port == 0)
                    _index = data[i] & 0x7F; // Bit 7 masks the NMI, which nothing here raises.
                else
                    WriteRegister(data[i]);
            }
        }
    }

    /// <summary>Disables the interrupts and clears their flags; time, RAM and formats are battery-backed (data sheet, "RESET").</summary>
    public void Reset()
    {
        lock (_lock)
        {
            _index = 0;
            StoreB((byte)(_ram[B] & (BDm | B2412)));
            StoreA(DefaultA);
            _ram[C] = 0;
            UpdateInterrupt();
            Rearm();
        }
    }

    /// <inheritdoc/>
    public CmosState Save()
    {
        lock (_lock)
        {
            CatchUp();
            if (!Stopped)
                CmosCalendar.Encode(Now, _ram);
            return new CmosState
            {
                Index = (byte)_index,
                Ram = [.. _ram],
                TimeOffset = _offset,
                TimeWritten = _timeWritten,
                DividerWasReset = _dividerWasReset,
            };
        }
    }

    /// <inheritdoc/>
    public void Restore(CmosState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion(Name, state.Version, CmosState.CurrentVersion);
        SavedState.RequireLength(Name, "RAM", state.Ram, Size, Size);
        lock (_lock)
        {
            _index = state.Index & 0x7F;
            state.Ram.CopyTo(_ram, 0);
            _ram[A] &= 0x7F;
            _ram[C] &= CPf | CAf | CUf;
            _ram[D] = DVrt;
            _offset = state.TimeOffset;
            _timeWritten = state.TimeWritten;
            _dividerWasReset = state.DividerWasReset;
            RestartEvents();
            UpdateInterrupt();
            Rearm();
        }
    }

    /// <summary>Stops the timer.</summary>
    public void Dispose() => _timer?.Dispose();

    private bool Stopped => (_ram[B] & BSet) != 0 || (_ram[A] & DividerReset) == DividerReset;

    // Kept in range whatever offset a saved state or a guest came with.
    private DateTime Now
    {
        get
        {
            long ticks = unchecked(_clock.GetUtcNow().Ticks + _offset.Ticks);
            return new DateTime(Math.Clamp(ticks, 0, DateTime.MaxValue.Ticks), DateTimeKind.Utc);
        }
    }

    private TimeSpan Period
    {
        get
        {
            int rate = _ram[A] & 0x0F;
            if (rate == 0)
                return TimeSpan.Zero;
            // Rates 1 and 2 are 256 and 128 Hz, the rest 65536 / 2^rate Hz (data sheet, table "Periodic interrupt rate").
            int shift = rate <= 2 ? rate + 6 : rate - 1;
            return TimeSpan.FromTicks(TimeSpan.TicksPerSecond * (1L << shift) / 32768);
        }
    }

    private void SetMemory(CmosConfiguration configuration)
    {
        const ulong KiB = 1024, MiB = 1024 * KiB;
        ulong low = configuration.MemoryBelow4GiB;
        Store16(BaseMemory, Math.Min(low / KiB, 640));
        ulong extended = low > MiB ? Math.Min((low - MiB) / KiB, 0xFFFF) : 0;
        Store16(ExtendedMemory, extended);
        Store16(ExtendedMemoryFound, extended);
        Store16(MemoryAbove16MiB, low > 16 * MiB ? Math.Min((low - 16 * MiB) / (64 * KiB), 0xFFFF) : 0);
        ulong high = Math.Min(configuration.MemoryAbove4GiB / (64 * KiB), 0xFFFFFF);
        Store16(MemoryAbove4GiB, high & 0xFFFF);
        _ram[MemoryAbove4GiB + 2] = (byte)(high >> 16);
    }

    private void Store16(int index, ulong value)
    {
        _ram[index] = (byte)value;
        _ram[index + 1] = (byte)(value >> 8);
    }

    private byte ReadRegister()
    {
        if (_index == C)
        {
            CatchUp();
            byte flags = _ram[C];
            if ((flags & _ram[B] & (CPf | CAf | CUf)) != 0)
                flags |= CIrqf;
            _ram[C] = 0;
            UpdateInterrupt();
            Rearm();
            return flags;
        }
        if (CmosCalendar.IsTime(_index) && !Stopped)
            CmosCalendar.Encode(Now, _ram);
        return _ram[_index];
    }

    private void WriteRegister(byte value)
    {
        switch (_index)
        {
            case A:
                CatchUp();
                StoreA((byte)(value & ~AUip));
                break;
            case B:
                CatchUp();
                StoreB(value);
                break;
            case C or D:
                return;
            case SecondsAlarm or MinutesAlarm or HoursAlarm:
                CatchUp();
                _ram[_index] = value;
                break;
            default:
                if (CmosCalendar.IsTime(_index))
                {
                    StoreTime(value);
                    break;
                }
                _ram[_index] = value;
                return;
        }
        UpdateInterrupt();
        Rearm();
    }

    private void StoreTime(byte value)
    {
        if (!Stopped)
            CmosCalendar.Encode(Now, _ram);
        _ram[_index] = value;
        _timeWritten = true;
        if (!Stopped)
            StartFromRegisters();
    }

    private void StoreA(byte value)
    {
        bool wasStopped = Stopped;
        if (!wasStopped)
            CmosCalendar.Encode(Now, _ram);
        _ram[A] = value;
        AfterStopChange(wasStopped);
    }

    private void StoreB(byte value)
    {
        bool wasStopped = Stopped;
        if (!wasStopped)
            CmosCalendar.Encode(Now, _ram);
        // Setting SET clears UIE (data sheet, register B).
        _ram[B] = (value & BSet) != 0 ? (byte)(value & ~BUie) : (byte)(value & ~0x08); // No square wave pin.
        AfterStopChange(wasStopped);
    }

    private void AfterStopChange(bool wasStopped)
    {
        bool stopped = Stopped;
        _dividerWasReset |= stopped && (_ram[A] & DividerReset) == DividerReset;
        if (wasStopped && !stopped)
            StartFromRegisters();
    }

    /// <summary>Lets the clock run on: from what the guest wrote, or as if it had never stopped when it wrote nothing.</summary>
    private void StartFromRegisters()
    {
        if (_timeWritten)
        {
            // The first update after the divider's reset comes half a second later (data sheet, "Divider control").
            TimeSpan fraction = _dividerWasReset ? TimeSpan.FromMilliseconds(500) : TimeSpan.Zero;
            _offset = CmosCalendar.Decode(_ram) + fraction - _clock.GetUtcNow().UtcDateTime;
        }
        _timeWritten = _dividerWasReset = false;
        RestartEvents();
    }

    private void RestartEvents()
    {
        long ticks = Now.Ticks;
        _seenSecond = ticks / TimeSpan.TicksPerSecond;
        _lastPeriodTicks = ticks;
    }

    /// <summary>Sets the flags of what happened since the last look (register C holds them whether enabled or not).</summary>
    private void CatchUp()
    {
        if (Stopped)
            return;
        long ticks = Now.Ticks;
        long second = ticks / TimeSpan.TicksPerSecond;
        if (second < _seenSecond)
            RestartEvents(); // The host's clock was set back.
        if (second > _seenSecond)
        {
            _ram[C] |= CUf;
            // A day covers every alarm there can be, so a longer sleep needs no longer look.
            long first = Math.Max(_seenSecond + 1, second - 86399);
            if ((_ram[C] & CAf) == 0 && AlarmBetween(first, second))
                _ram[C] |= CAf;
            _seenSecond = second;
        }
        long period = Period.Ticks;
        if (period != 0 && ticks - _lastPeriodTicks >= period)
        {
            _ram[C] |= CPf;
            _lastPeriodTicks = ticks - (ticks - _lastPeriodTicks) % period;
        }
    }

    private bool AlarmBetween(long first, long last)
    {
        long next = NextAlarm(first);
        return next >= 0 && next <= last;
    }

    /// <summary>The first second at or after one at which the alarm goes off, or -1 when it never does.</summary>
    private long NextAlarm(long from)
    {
        // Whole hours and minutes are skipped where they cannot match, so this takes a few hundred steps for any alarm that can
        // match; one that cannot would take a day's worth of them.
        if (!CmosCalendar.AlarmPossible(_ram))
            return -1;
        long end = Math.Min(from + 86400, DateTime.MaxValue.Ticks / TimeSpan.TicksPerSecond);
        for (long second = from; second < end;)
        {
            var time = new DateTime(second * TimeSpan.TicksPerSecond, DateTimeKind.Utc);
            switch (CmosCalendar.AlarmMismatch(time, _ram))
            {
                case CmosCalendar.AlarmPart.None:
                    return second;
                case CmosCalendar.AlarmPart.Hour:
                    second += 3600 - second % 3600;
                    break;
                case CmosCalendar.AlarmPart.Minute:
                    second += 60 - second % 60;
                    break;
                default:
                    second++;
                    break;
            }
        }
        return -1;
    }

    private void OnTimer()
    {
        lock (_lock)
        {
            _armed = false;
            CatchUp();
            UpdateInterrupt();
            Rearm();
        }
    }

    /// <summary>Sets the timer for the next event that would raise the interrupt; none when it is raised already.</summary>
    private void Rearm()
    {
        if (_timer is null)
            return;
        TimeSpan due = Timeout.InfiniteTimeSpan;
        byte enabled = (byte)(_ram[B] & (BPie | BAie | BUie));
        if (enabled != 0 && !_line && !Stopped)
        {
            long ticks = Now.Ticks;
            long wait = long.MaxValue;
            if ((enabled & BUie) != 0)
                wait = TimeSpan.TicksPerSecond - ticks % TimeSpan.TicksPerSecond;
            if ((enabled & BAie) != 0)
            {
                long alarm = NextAlarm(ticks / TimeSpan.TicksPerSecond + 1);
                if (alarm >= 0)
                    wait = Math.Min(wait, alarm * TimeSpan.TicksPerSecond - ticks);
            }
            long period = Period.Ticks;
            if ((enabled & BPie) != 0 && period != 0)
                wait = Math.Min(wait, Math.Max(period - (ticks - _lastPeriodTicks), 0));
            if (wait != long.MaxValue)
            {
                // Rounded up: a timer that fires early would find nothing and have to be set again.
                long milliseconds = Math.Max((wait + TimeSpan.TicksPerMillisecond - 1) / TimeSpan.TicksPerMillisecond, 1);
                due = TimeSpan.FromTicks(Math.Max(milliseconds * TimeSpan.TicksPerMillisecond, s_shortestPeriod.Ticks));
            }
        }
        if (due == Timeout.InfiniteTimeSpan && !_armed)
            return;
        _armed = due != Timeout.InfiniteTimeSpan;
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
        bool level = (_ram[C] & _ram[B] & (CPf | CAf | CUf)) != 0;
        if (level == _line)
            return;
        _line = level;
        _interrupt?.Set(level);
    }
}
