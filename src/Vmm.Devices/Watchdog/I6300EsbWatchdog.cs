using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Devices.Pci;
using static Vmm.Devices.Watchdog.I6300EsbRegisters;

namespace Vmm.Devices.Watchdog;

/// <summary>
/// The watchdog of Intel's 6300ESB (Linux: i6300esb). A guest that enabled it has to reload it again and again; when it does not, the first
/// of two stages ends with an interrupt, if the guest wants one, and the second with the action that was configured.
/// </summary>
/// <remarks>Time stands still while the machine is paused: <see cref="Pause"/>, <see cref="Resume"/>.</remarks>
public sealed class I6300EsbWatchdog : IPciFunction, IDevice<WatchdogState>, IDisposable
{
    /// <summary>The shortest stage: a guest that wants less would keep a processor of the host busy with timers.</summary>
    private static readonly TimeSpan s_shortest = TimeSpan.FromMilliseconds(1);

    private static readonly TimeSpan s_longest = StageLength(PreloadMask, fast: false);

    private readonly WatchdogAction _action;
    private readonly IWatchdogObserver _observer;
    private readonly IInterruptLine? _line;
    private readonly TimeProvider _clock;
    private readonly ITimer _timer;
    private readonly PciConfigurationSpace _configuration = new(Identity);
    private readonly PciBarWindow _window;
    private readonly Lock _lock = new();

    // Held while the action is taken, so that nobody is told of one after the disposal. Never taken with the other lock held.
    private readonly Lock _acting = new();

    private uint _preload1 = PreloadMask, _preload2 = PreloadMask;
    private bool _interruptActive, _timedOut, _paused, _disposed;
    private int _unlockStep, _stage;

    // When the stage began to count and for how long; while paused, what is left.
    private long _since;
    private TimeSpan _duration;
    private long _expirations;

    /// <summary>Makes one that is off.</summary>
    /// <param name="config">What was asked for.</param>
    /// <param name="mmio">Where its registers appear, when the guest has placed them.</param>
    /// <param name="observer">Does what was asked for.</param>
    /// <param name="clock">Measures the time.</param>
    /// <param name="line">The first stage's interrupt; null for none, as Linux's driver does not use it.</param>
    public I6300EsbWatchdog(WatchdogConfig config, AddressBus mmio, IWatchdogObserver observer, TimeProvider clock, IInterruptLine? line = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(observer);
        ArgumentNullException.ThrowIfNull(clock);
        _action = config.Action;
        _timedOut = config.TimedOut;
        _observer = observer;
        _line = line;
        _clock = clock;
        _configuration.AddBar(0, PciBarKind.Memory32, Length);
        _configuration.AddRegister(I6300EsbRegisters.Configuration, [0, 0], [(byte)(InterruptTypeMask | FastClock | OutputDisabled), 0]);
        _configuration.AddRegister(I6300EsbRegisters.Lock, [0], [Locked | Enable | FreeRunning]);
        _window = new PciBarWindow(mmio, new Registers(this), "the watchdog");
        _timer = clock.CreateTimer(static watchdog => ((I6300EsbWatchdog)watchdog!).StageEnded(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    /// <summary>Times that its second stage expired and the action was taken.</summary>
    public long Expirations => Volatile.Read(ref _expirations);

    /// <inheritdoc/>
    public void ReadConfiguration(int offset, Span<byte> data)
    {
        lock (_lock)
            _configuration.Read(offset, data);
    }

    /// <inheritdoc/>
    public void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            byte before = LockRegister;
            PciConfigurationChanges changes = _configuration.Write(offset, data);
            if ((before & Locked) != 0)
                _configuration.Store16(I6300EsbRegisters.Lock, before);
            byte now = LockRegister;
            if ((now & ~before & Enable) != 0)
                Begin(1);
            else if ((now & Enable) == 0)
                Stop();
            if ((changes & (PciConfigurationChanges.Bars | PciConfigurationChanges.Command)) != 0)
                _window.Update(_configuration.GetBar(0));
        }
    }

    /// <inheritdoc cref="IPciFunction.Reset"/>
    /// <remarks>That it timed out stays, for the guest to see after the reset that it caused.</remarks>
    public void Reset()
    {
        lock (_lock)
            ResetRegisters();
    }

    /// <summary>The machine is paused: what is left of the stage stays.</summary>
    public void Pause()
    {
        lock (_lock)
        {
            if (_paused)
                return;
            _duration = Remaining;
            _paused = true;
            Arm();
        }
    }

    /// <summary>The machine goes on.</summary>
    public void Resume()
    {
        lock (_lock)
        {
            if (!_paused)
                return;
            _paused = false;
            _since = _clock.GetTimestamp();
            Arm();
        }
    }

    /// <inheritdoc/>
    public WatchdogState Save()
    {
        lock (_lock)
        {
            return new WatchdogState
            {
                Configuration = _configuration.Save(),
                Preload1 = _preload1,
                Preload2 = _preload2,
                InterruptActive = _interruptActive,
                TimedOut = _timedOut,
                UnlockStep = _unlockStep,
                Stage = _stage,
                Remaining = _stage == 0 ? TimeSpan.Zero : Remaining,
            };
        }
    }

    /// <inheritdoc/>
    public void Restore(WatchdogState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion("watchdog", state.Version, WatchdogState.CurrentVersion);
        lock (_lock)
        {
            _configuration.Restore(state.Configuration);
            _preload1 = state.Preload1 & PreloadMask;
            _preload2 = state.Preload2 & PreloadMask;
            _timedOut = state.TimedOut;
            _unlockStep = Math.Clamp(state.UnlockStep, 0, 2);
            _stage = (LockRegister & Enable) != 0 ? Math.Clamp(state.Stage, 0, 2) : 0;
            // The clock may have been changed since the stage began, so its speed is no bound.
            _duration = TimeSpan.FromTicks(Math.Clamp(state.Remaining.Ticks, 0, s_longest.Ticks));
            _since = _clock.GetTimestamp();
            SetInterrupt(state.InterruptActive);
            _window.Update(_configuration.GetBar(0));
            Arm();
        }
    }

    /// <summary>Takes it off the bus, and waits for an action that is being taken; none is after that.</summary>
    public void Dispose()
    {
        lock (_acting)
        {
            lock (_lock)
            {
                _disposed = true;
                _window.Leave();
            }
        }
        _timer.Dispose();
    }

    private byte LockRegister => (byte)_configuration.ReadUInt16(I6300EsbRegisters.Lock);

    private ushort ConfigurationRegister => _configuration.ReadUInt16(I6300EsbRegisters.Configuration);

    private TimeSpan Remaining
    {
        get
        {
            TimeSpan left = _paused ? _duration : _duration - _clock.GetElapsedTime(_since);
            return left > TimeSpan.Zero ? left : TimeSpan.Zero;
        }
    }

    private void Read(ulong offset, Span<byte> data)
    {
        Span<byte> registers = stackalloc byte[Length];
        registers.Clear();
        lock (_lock)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(registers[Preload1..], _preload1);
            BinaryPrimitives.WriteUInt32LittleEndian(registers[Preload2..], _preload2);
            BinaryPrimitives.WriteUInt32LittleEndian(registers[InterruptStatus..], _interruptActive ? InterruptActive : 0);
            BinaryPrimitives.WriteUInt32LittleEndian(registers[I6300EsbRegisters.Reload..], _timedOut ? TimedOut : 0);
        }
        data.Fill(0xFF);
        int from = (int)Math.Min(offset, Length);
        int count = Math.Min(data.Length, Length - from);
        registers.Slice(from, count).CopyTo(data);
    }

    private void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (data.Length > sizeof(uint))
            return;
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        bytes.Clear();
        data.CopyTo(bytes);
        uint value = BinaryPrimitives.ReadUInt32LittleEndian(bytes);
        lock (_lock)
        {
            if (offset == InterruptStatus)
            {
                if ((value & InterruptActive) != 0)
                    SetInterrupt(false);
                return;
            }
            if (offset == I6300EsbRegisters.Reload && value == Unlock1)
            {
                _unlockStep = 1;
                return;
            }
            if (offset == I6300EsbRegisters.Reload && value == Unlock2 && _unlockStep == 1)
            {
                _unlockStep = 2;
                return;
            }
            bool unlocked = _unlockStep == 2;
            _unlockStep = 0;
            if (unlocked)
                WriteUnlocked(offset, data.Length, value);
        }
    }

    private void WriteUnlocked(ulong offset, int length, uint value)
    {
        switch (offset)
        {
            case Preload1 when length == sizeof(uint):
                _preload1 = value & PreloadMask;
                break;
            case Preload2 when length == sizeof(uint):
                _preload2 = value & PreloadMask;
                break;
            case I6300EsbRegisters.Reload when length >= sizeof(ushort):
                if ((value & TimedOut) != 0)
                    _timedOut = false;
                if ((value & ReloadNow) != 0 && (LockRegister & Enable) != 0)
                    Begin(1);
                break;
        }
    }

    /// <summary>The timer fired.</summary>
    private void StageEnded()
    {
        bool expired = false;
        lock (_lock)
        {
            // It may have been stopped, reloaded or paused since it fired.
            if (_stage == 0 || _paused || _disposed)
                return;
            if (Remaining > TimeSpan.Zero)
                Arm();
            else if (_stage == 1)
                EndFirstStage();
            else
                expired = EndSecondStage();
        }
        if (!expired)
            return;
        lock (_acting)
        {
            if (!_disposed)
                _observer.Expired(_action);
        }
    }

    private void EndFirstStage()
    {
        if ((ConfigurationRegister & InterruptTypeMask) == 0)
            SetInterrupt(true);
        Begin(2);
    }

    private bool EndSecondStage()
    {
        bool expired = (ConfigurationRegister & OutputDisabled) == 0;
        if (expired)
        {
            Volatile.Write(ref _expirations, _expirations + 1);
            // As the reset that follows would, and so that the action is taken once where none follows.
            _timedOut = true;
            StopForGood();
        }
        else if ((LockRegister & FreeRunning) != 0)
        {
            Begin(1);
        }
        else
        {
            Stop();
        }
        return expired;
    }

    private void StopForGood()
    {
        _configuration.Store16(I6300EsbRegisters.Lock, 0);
        Stop();
    }

    private void ResetRegisters()
    {
        _configuration.Reset();
        _window.Update(_configuration.GetBar(0));
        _preload1 = _preload2 = PreloadMask;
        _unlockStep = 0;
        SetInterrupt(false);
        Stop();
    }

    private void Begin(int stage)
    {
        _stage = stage;
        _duration = StageLength(stage == 1 ? _preload1 : _preload2, (ConfigurationRegister & FastClock) != 0);
        _since = _clock.GetTimestamp();
        Arm();
    }

    private void Stop()
    {
        _stage = 0;
        Arm();
    }

    private void Arm()
    {
        if (_disposed)
            return;
        _timer.Change(_stage == 0 || _paused ? Timeout.InfiniteTimeSpan : Remaining, Timeout.InfiniteTimeSpan);
    }

    private static TimeSpan StageLength(uint preload, bool fast)
    {
        long ticks = ((long)preload << (fast ? 5 : 15)) * (TimeSpan.TicksPerMillisecond / 1000) / PciClockMegahertz;
        return ticks < s_shortest.Ticks ? s_shortest : TimeSpan.FromTicks(ticks);
    }

    private void SetInterrupt(bool active)
    {
        _interruptActive = active;
        _line?.Set(active);
    }

    /// <summary>The memory-mapped registers.</summary>
    private sealed class Registers(I6300EsbWatchdog watchdog) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data) => watchdog.Read(offset, data);

        public void Write(ulong offset, ReadOnlySpan<byte> data) => watchdog.Write(offset, data);
    }
}
