using Vmm.Core.Bus;
using static Vmm.Devices.I8042.I8042Registers;

namespace Vmm.Devices.I8042;

/// <summary>
/// The PC's keyboard controller with a keyboard and no mouse. It answers all that drivers ask while they probe, resets the
/// machine, and lets the host press Ctrl-Alt-Delete. Everything is done when its write returns, so no driver waits.
/// </summary>
public sealed class I8042Controller : IDevice<I8042State>
{
    private const string Name = "keyboard controller";

    // As firmware leaves it: interrupt on, self-test passed, no mouse, translation on.
    private const byte DefaultCtr = CtrKeyboardInterrupt | CtrSystem | CtrAuxiliaryDisable | CtrTranslate;

    // Bit 0: not in reset; bit 1: A20 open.
    private const byte DefaultOutputPort = 0x03;

    private readonly IInterruptLine _interrupt;
    private readonly IGuestEventSink _events;
    private readonly Lock _lock = new();
    private readonly Ps2Keyboard _keyboard = new();
    private byte _ctr, _pending, _outputPort, _reply, _replyStatus, _lastData;
    private bool _lastWasCommand, _hasReply, _releasePrefix, _line;

    /// <summary>Makes a controller in its reset state.</summary>
    /// <param name="interrupt">The keyboard's interrupt.</param>
    /// <param name="events">Told when the guest resets the machine.</param>
    public I8042Controller(IInterruptLine interrupt, IGuestEventSink events)
    {
        ArgumentNullException.ThrowIfNull(interrupt);
        ArgumentNullException.ThrowIfNull(events);
        _interrupt = interrupt;
        _events = events;
        DataPort = new Port(this, command: false);
        CommandPort = new Port(this, command: true);
        ResetRegisters();
    }

    /// <summary>What goes on the bus at <see cref="I8042Registers.DataPort"/>, 1 byte long.</summary>
    public IBusDevice DataPort { get; }

    /// <summary>What goes on the bus at <see cref="I8042Registers.CommandPort"/>, 1 byte long.</summary>
    public IBusDevice CommandPort { get; }

    /// <summary>Presses and releases Ctrl-Alt-Delete.</summary>
    /// <returns>False when the guest has the keyboard switched off or does not read it.</returns>
    public bool SendCtrlAltDel()
    {
        lock (_lock)
        {
            if ((_ctr & CtrKeyboardDisable) != 0 || !_keyboard.SendKeys(ScanCodes.CtrlAltDelete))
                return false;
            UpdateInterrupt();
            return true;
        }
    }

    /// <inheritdoc/>
    public void Reset()
    {
        lock (_lock)
        {
            ResetRegisters();
            UpdateInterrupt();
        }
    }

    /// <inheritdoc/>
    public I8042State Save()
    {
        lock (_lock)
        {
            return new I8042State
            {
                CommandByte = _ctr,
                PendingCommand = _pending,
                LastWriteWasCommand = _lastWasCommand,
                OutputPort = _outputPort,
                Reply = _hasReply ? _reply : null,
                ReplyStatus = _replyStatus,
                LastData = _lastData,
                ReleasePrefix = _releasePrefix,
                Queue = _keyboard.CopyQueue(),
                Scanning = _keyboard.Scanning,
                KeyboardPending = _keyboard.Pending,
                Leds = _keyboard.Leds,
                Typematic = _keyboard.Typematic,
                ScanCodeSet = _keyboard.ScanCodeSet,
                LastSent = _keyboard.LastSent,
            };
        }
    }

    /// <inheritdoc/>
    public void Restore(I8042State state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion(Name, state.Version, I8042State.CurrentVersion);
        SavedState.RequireLength(Name, "keyboard queue", state.Queue, 0, Ps2Keyboard.QueueSize);
        lock (_lock)
        {
            _ctr = state.CommandByte;
            _pending = state.PendingCommand;
            _lastWasCommand = state.LastWriteWasCommand;
            _outputPort = (byte)(state.OutputPort | 1);
            _hasReply = state.Reply.HasValue;
            _reply = state.Reply.GetValueOrDefault();
            _replyStatus = (byte)(state.ReplyStatus & (StatusAuxiliary | StatusTimeout));
            _lastData = state.LastData;
            _releasePrefix = state.ReleasePrefix;
            _keyboard.SetQueue(state.Queue);
            _keyboard.Scanning = state.Scanning;
            _keyboard.Pending = state.KeyboardPending;
            _keyboard.Leds = (byte)(state.Leds & 7);
            _keyboard.Typematic = (byte)(state.Typematic & 0x7F);
            _keyboard.ScanCodeSet = Math.Clamp(state.ScanCodeSet, (byte)1, (byte)3);
            _keyboard.LastSent = state.LastSent;
            UpdateInterrupt();
        }
    }

    private bool KeyboardReady => _keyboard.Count > 0 && (_ctr & CtrKeyboardDisable) == 0;

    private void ResetRegisters()
    {
        _keyboard.PowerOn();
        _ctr = DefaultCtr;
        _outputPort = DefaultOutputPort;
        _pending = _reply = _replyStatus = _lastData = 0;
        _lastWasCommand = _hasReply = _releasePrefix = false;
    }

    private byte ReadStatus()
    {
        lock (_lock)
        {
            SkipReleasePrefix();
            int status = StatusUnlocked | (_ctr & CtrSystem) | (_lastWasCommand ? StatusCommand : 0);
            if (_hasReply)
                status |= StatusObf | _replyStatus;
            else if (KeyboardReady)
                status |= StatusObf;
            return (byte)status;
        }
    }

    private byte ReadData()
    {
        lock (_lock)
        {
            SkipReleasePrefix();
            if (_hasReply)
            {
                _lastData = _reply;
                _hasReply = false;
            }
            else if (KeyboardReady)
            {
                byte value = _keyboard.Take();
                if ((_ctr & CtrTranslate) != 0)
                {
                    value = ScanCodes.Translate(value);
                    if (_releasePrefix && value < 0x80)
                        value |= 0x80;
                }
                _releasePrefix = false;
                _lastData = value;
                // The interrupt is an edge for each byte.
                Lower();
            }
            UpdateInterrupt();
            return _lastData;
        }
    }

    /// <summary>The translation keeps the release prefix to itself and sets bit 7 of the byte that follows.</summary>
    private void SkipReleasePrefix()
    {
        while ((_ctr & CtrTranslate) != 0 && KeyboardReady && _keyboard.Peek() == ScanCodes.Release)
        {
            _keyboard.Take();
            _releasePrefix = true;
        }
    }

    private void WriteCommand(byte command)
    {
        bool reset = false;
        lock (_lock)
        {
            _lastWasCommand = true;
            _pending = 0;
            // An answer that nobody fetched is overwritten; what the keyboard has is kept.
            _hasReply = false;
            switch (command)
            {
                case CommandReadCtr:
                    Answer(_ctr);
                    break;
                case CommandWriteCtr or CommandWriteOutputPort or CommandWriteKeyboardBuffer:
                case CommandWriteAuxiliaryBuffer or CommandWriteAuxiliary:
                    _pending = command;
                    break;
                case CommandAuxiliaryDisable:
                    _ctr |= CtrAuxiliaryDisable;
                    break;
                case CommandAuxiliaryEnable:
                    _ctr = (byte)(_ctr & ~CtrAuxiliaryDisable);
                    break;
                case CommandAuxiliaryTest:
                    Answer(0x01); // Clock line stuck low: nothing is plugged in.
                    break;
                case CommandSelfTest:
                    _ctr |= CtrSystem;
                    Answer(0x55);
                    break;
                case CommandKeyboardTest:
                    Answer(0x00);
                    break;
                case CommandKeyboardDisable:
                    _ctr |= CtrKeyboardDisable;
                    break;
                case CommandKeyboardEnable:
                    _ctr = (byte)(_ctr & ~CtrKeyboardDisable);
                    break;
                case CommandReadInputPort:
                    Answer(0x80); // Not locked.
                    break;
                case CommandReadOutputPort:
                    Answer((byte)(_outputPort | (KeyboardReady ? 0x10 : 0)));
                    break;
                case >= CommandPulse:
                    reset = (command & 1) == 0;
                    break;
            }
            UpdateInterrupt();
        }
        if (reset)
            _events.Signal(GuestEvent.Reset);
    }

    private void WriteData(byte value)
    {
        bool reset = false;
        lock (_lock)
        {
            _lastWasCommand = false;
            byte pending = _pending;
            _pending = 0;
            switch (pending)
            {
                case CommandWriteCtr:
                    _ctr = value;
                    break;
                case CommandWriteOutputPort:
                    reset = (value & 1) == 0;
                    _outputPort = (byte)(value | 1);
                    break;
                case CommandWriteKeyboardBuffer:
                    Answer(value);
                    break;
                case CommandWriteAuxiliaryBuffer:
                    // Without the auxiliary bit, which at once tells Linux (i8042_check_aux) that there is no such port.
                    Answer(value);
                    break;
                case CommandWriteAuxiliary:
                    Answer(0xFE, StatusAuxiliary | StatusTimeout);
                    break;
                default:
                    // Sending to the keyboard turns its clock on.
                    _ctr = (byte)(_ctr & ~CtrKeyboardDisable);
                    _releasePrefix = false;
                    Lower();
                    _keyboard.Command(value);
                    break;
            }
            UpdateInterrupt();
        }
        if (reset)
            _events.Signal(GuestEvent.Reset);
    }

    private void Answer(byte value, byte status = 0)
    {
        _reply = value;
        _replyStatus = status;
        _hasReply = true;
    }

    private void Lower()
    {
        if (!_line)
            return;
        _line = false;
        _interrupt.Set(false);
    }

    private void UpdateInterrupt()
    {
        SkipReleasePrefix();
        // Answers of the controller itself are polled for by whoever asked.
        bool level = !_hasReply && KeyboardReady && (_ctr & CtrKeyboardInterrupt) != 0;
        if (level == _line)
            return;
        _line = level;
        _interrupt.Set(level);
    }

    private sealed class Port(I8042Controller controller, bool command) : IBusDevice
    {
        public void Read(ulong offset, Span<byte> data)
        {
            data.Fill(0xFF);
            if (offset == 0 && !data.IsEmpty)
                data[0] = command ? controller.ReadStatus() : controller.ReadData();
        }

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            if (offset != 0 || data.IsEmpty)
                return;
            if (command)
                controller.WriteCommand(data[0]);
            else
                controller.WriteData(data[0]);
        }
    }
}
