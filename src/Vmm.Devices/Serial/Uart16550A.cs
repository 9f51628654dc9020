using Vmm.Core.Bus;
using static Vmm.Devices.Serial.UartRegisters;

namespace Vmm.Devices.Serial;

/// <summary>
/// A PC16550D serial port. What the guest transmits is at the sink before its write returns, so the transmitter is empty whenever
/// the guest looks. What it receives is back-pressured: <see cref="Receive"/> takes what fits and
/// <see cref="ReceiveSpaceAvailable"/> tells when to go on, so no byte is ever lost on the way in.
/// </summary>
public sealed class Uart16550A : IBusDevice, IDevice<UartState>
{
    private const string Name = "serial port";

    // 9600 baud from 1.8432 MHz: what firmware leaves behind. The rate changes nothing here.
    private const ushort DefaultDivisor = 12;

    // A terminal that is always there.
    private const byte ConnectedModem = MsrDcd | MsrDsr | MsrCts;

    private readonly ICharacterSink _sink;
    private readonly IInterruptLine _interrupt;
    private readonly Lock _lock = new();

    // Held while a byte is on its way out, and only then: the sink may block, and must not keep Receive from running, because
    // whoever feeds us may be the one the sink is waiting for. Never taken while _lock is held.
    private readonly Lock _output = new();

    private readonly byte[] _fifo = new byte[FifoSize];
    private int _head;
    private int _count;
    private byte _ier, _fcr, _lcr, _mcr, _msr, _scr;
    private ushort _divisor;
    private bool _overrun, _thrEmptyPending, _line;

    // Someone had more for us than fitted, and is waiting to be told.
    private bool _starved;

    /// <summary>Makes a port in its reset state.</summary>
    /// <param name="sink">Takes what the guest transmits.</param>
    /// <param name="interrupt">The interrupt, high while one is pending and OUT2 lets it through.</param>
    public Uart16550A(ICharacterSink sink, IInterruptLine interrupt)
    {
        ArgumentNullException.ThrowIfNull(sink);
        ArgumentNullException.ThrowIfNull(interrupt);
        _sink = sink;
        _interrupt = interrupt;
        ResetRegisters();
    }

    /// <summary>
    /// Called when the guest made room after <see cref="Receive"/> took less than it was offered. Runs on a vCPU thread with no
    /// lock held, so it may call <see cref="Receive"/>; it returns soon and does not throw. Set before the guest runs.
    /// </summary>
    public Action? ReceiveSpaceAvailable { get; set; }

    /// <summary>Gives the guest input: as much as fits its receive FIFO (nothing while it has the port in loopback).</summary>
    /// <returns>How many bytes were taken; when fewer than given, <see cref="ReceiveSpaceAvailable"/> follows.</returns>
    public int Receive(ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            int taken = 0;
            if (!Loopback)
            {
                taken = Math.Min(data.Length, Capacity - _count);
                for (int i = 0; i < taken; i++)
                    _fifo[(_head + _count + i) % FifoSize] = data[i];
                _count += taken;
            }
            _starved |= taken < data.Length;
            UpdateInterrupt();
            return taken;
        }
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        bool notify = false;
        for (int i = 0; i < data.Length; i++)
        {
            ulong register = offset + (ulong)i;
            if (register >= PortCount)
            {
                data[i] = 0xFF;
                continue;
            }
            lock (_lock)
            {
                data[i] = ReadRegister((int)register);
                notify |= TakeNotification();
            }
        }
        if (notify)
            ReceiveSpaceAvailable?.Invoke();
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        bool notify = false;
        for (int i = 0; i < data.Length; i++)
        {
            ulong register = offset + (ulong)i;
            if (register >= PortCount)
                break;
            bool transmit;
            lock (_lock)
            {
                transmit = register == RbrThr && (_lcr & LcrDlab) == 0 && !Loopback;
                if (!transmit)
                {
                    WriteRegister((int)register, data[i]);
                    notify |= TakeNotification();
                }
            }
            if (transmit)
                Transmit(data.Slice(i, 1));
        }
        if (notify)
            ReceiveSpaceAvailable?.Invoke();
    }

    /// <inheritdoc/>
    public void Reset()
    {
        bool notify;
        lock (_lock)
        {
            ResetRegisters();
            UpdateInterrupt();
            notify = TakeNotification();
        }
        if (notify)
            ReceiveSpaceAvailable?.Invoke();
    }

    /// <inheritdoc/>
    public UartState Save()
    {
        lock (_lock)
        {
            byte[] received = new byte[_count];
            for (int i = 0; i < _count; i++)
                received[i] = _fifo[(_head + i) % FifoSize];
            return new UartState
            {
                Ier = _ier,
                Fcr = _fcr,
                Lcr = _lcr,
                Mcr = _mcr,
                Msr = _msr,
                Scr = _scr,
                Divisor = _divisor,
                Overrun = _overrun,
                ThrEmptyPending = _thrEmptyPending,
                Received = received,
            };
        }
    }

    /// <inheritdoc/>
    public void Restore(UartState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion(Name, state.Version, UartState.CurrentVersion);
        bool fifos = (state.Fcr & FcrEnable) != 0;
        SavedState.RequireLength(Name, "receive FIFO", state.Received, 0, fifos ? FifoSize : 1);
        bool notify;
        lock (_lock)
        {
            _ier = (byte)(state.Ier & 0x0F);
            _fcr = (byte)(state.Fcr & 0xC9);
            _lcr = state.Lcr;
            _mcr = (byte)(state.Mcr & 0x1F);
            _msr = state.Msr;
            _scr = state.Scr;
            _divisor = state.Divisor;
            _overrun = state.Overrun;
            _thrEmptyPending = state.ThrEmptyPending;
            _head = 0;
            _count = state.Received.Length;
            state.Received.CopyTo(_fifo, 0);
            UpdateInterrupt();
            notify = TakeNotification();
        }
        if (notify)
            ReceiveSpaceAvailable?.Invoke();
    }

    private bool Loopback => (_mcr & McrLoop) != 0;

    private bool FifosEnabled => (_fcr & FcrEnable) != 0;

    private int Capacity => FifosEnabled ? FifoSize : 1;

    // Section 8.5: FCR bits 7:6.
    private int TriggerLevel => !FifosEnabled ? 1 : (_fcr >> 6) switch { 0 => 1, 1 => 4, 2 => 8, _ => 14 };

    private byte LineStatus => (byte)(LsrThrEmpty | LsrTransmitterEmpty | (_overrun ? LsrOverrun : 0) | (_count > 0 ? LsrDataReady : 0));

    /// <summary>The pending interrupt of the highest priority (section 8.6, table IV).</summary>
    private byte Identification
    {
        get
        {
            if ((_ier & IerElsi) != 0 && _overrun)
                return IirLineStatus;
            // What is below the trigger level has no later bytes to wait for: the sender gave all it has. So its timeout is now.
            if ((_ier & IerErbfi) != 0 && _count > 0)
                return _count >= TriggerLevel ? IirReceivedData : IirCharacterTimeout;
            if ((_ier & IerEtbei) != 0 && _thrEmptyPending)
                return IirThrEmpty;
            if ((_ier & IerEdssi) != 0 && (_msr & 0x0F) != 0)
                return IirModemStatus;
            return IirNone;
        }
    }

    private void ResetRegisters()
    {
        _ier = _fcr = _lcr = _mcr = _scr = 0;
        _msr = ConnectedModem;
        _divisor = DefaultDivisor;
        _overrun = _thrEmptyPending = false;
        _head = _count = 0;
    }

    private byte ReadRegister(int register)
    {
        bool latch = (_lcr & LcrDlab) != 0;
        switch (register)
        {
            case RbrThr when latch:
                return (byte)_divisor;
            case RbrThr:
                return Dequeue();
            case Ier:
                return latch ? (byte)(_divisor >> 8) : _ier;
            case IirFcr:
                return Identify();
            case Lcr:
                return _lcr;
            case Mcr:
                return _mcr;
            case Lsr:
                byte status = LineStatus;
                if (_overrun)
                {
                    _overrun = false;
                    UpdateInterrupt();
                }
                return status;
            case Msr:
                byte modem = _msr;
                if ((modem & 0x0F) != 0)
                {
                    _msr &= 0xF0;
                    UpdateInterrupt();
                }
                return modem;
            default:
                return _scr;
        }
    }

    private void WriteRegister(int register, byte value)
    {
        bool latch = (_lcr & LcrDlab) != 0;
        switch (register)
        {
            case RbrThr when latch:
                _divisor = (ushort)((_divisor & 0xFF00) | value);
                break;
            case RbrThr:
                LoopBack(value);
                break;
            case Ier when latch:
                _divisor = (ushort)((_divisor & 0x00FF) | (value << 8));
                break;
            case Ier:
                // Enabling the interrupt while the transmitter is empty raises it, each time: Linux (THRE test) and others rely on it.
                if ((value & ~_ier & IerEtbei) != 0)
                    _thrEmptyPending = true;
                _ier = (byte)(value & 0x0F);
                break;
            case IirFcr:
                ControlFifos(value);
                break;
            case Lcr:
                _lcr = value;
                break;
            case Mcr:
                _mcr = (byte)(value & 0x1F);
                UpdateModemStatus();
                break;
            case Scr:
                _scr = value;
                break;
            default:
                // LSR and MSR are written in factory tests only (sections 8.4 and 8.8).
                return;
        }
        UpdateInterrupt();
    }

    private byte Dequeue()
    {
        if (_count == 0)
            return 0;
        byte value = _fifo[_head];
        _head = (_head + 1) % FifoSize;
        _count--;
        UpdateInterrupt();
        return value;
    }

    private byte Identify()
    {
        byte source = Identification;
        if (source == IirThrEmpty)
        {
            // Reading the identification acknowledges this source, and only when it is the one shown (table IV).
            _thrEmptyPending = false;
            UpdateInterrupt();
        }
        return (byte)(source | (FifosEnabled ? IirFifosEnabled : 0));
    }

    private void ControlFifos(byte value)
    {
        bool enable = (value & FcrEnable) != 0;
        // Changing bit 0 clears both FIFOs; without it the other bits are not programmed (section 8.5).
        if (enable != FifosEnabled || (enable && (value & FcrReceiveReset) != 0))
            _head = _count = 0;
        _fcr = enable ? (byte)(value & 0xC9) : (byte)0;
    }

    private void Transmit(ReadOnlySpan<byte> one)
    {
        lock (_output)
            _sink.Write(one);
        // Only now: an interrupt before the byte is out would let another vCPU's next byte overtake it.
        lock (_lock)
        {
            _thrEmptyPending = true;
            UpdateInterrupt();
        }
    }

    private void LoopBack(byte value)
    {
        if (_count < Capacity)
        {
            _fifo[(_head + _count) % FifoSize] = value;
            _count++;
        }
        else
        {
            // The only true overrun: without FIFOs the new byte replaces the old one, with them it is lost (section 8.4, bit 1).
            _overrun = true;
            if (!FifosEnabled)
                _fifo[_head] = value;
        }
        _thrEmptyPending = true;
    }

    private void UpdateModemStatus()
    {
        byte lines = ConnectedModem;
        if (Loopback)
        {
            lines = (byte)(((_mcr & McrRts) != 0 ? MsrCts : 0) | ((_mcr & McrDtr) != 0 ? MsrDsr : 0) |
                ((_mcr & McrOut1) != 0 ? MsrRi : 0) | ((_mcr & McrOut2) != 0 ? MsrDcd : 0));
        }
        int changed = lines ^ _msr;
        int deltas = _msr & 0x0F;
        if ((changed & MsrCts) != 0)
            deltas |= MsrDeltaCts;
        if ((changed & MsrDsr) != 0)
            deltas |= MsrDeltaDsr;
        if ((changed & MsrRi) != 0 && (lines & MsrRi) == 0)
            deltas |= MsrTrailingRing;
        if ((changed & MsrDcd) != 0)
            deltas |= MsrDeltaDcd;
        _msr = (byte)(lines | deltas);
    }

    private void UpdateInterrupt()
    {
        bool level = Identification != IirNone && (_mcr & McrOut2) != 0;
        if (level == _line)
            return;
        _line = level;
        _interrupt.Set(level);
    }

    private bool TakeNotification()
    {
        if (!_starved || _count > 0 || Loopback)
            return false;
        _starved = false;
        return true;
    }
}
