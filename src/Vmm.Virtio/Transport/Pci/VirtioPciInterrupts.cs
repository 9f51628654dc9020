using Vmm.Core.Bus;
using Vmm.Core.Events;
using static Vmm.Virtio.Transport.Pci.VirtioPciRegisters;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// How a function interrupts: by MSI-X while that is enabled, else by its INTx line with the ISR status (VIRTIO 1.3 §4.1.4.5, §4.1.5.1.2).
/// Signals come from any thread and take the leaf lock of the line at most; the rest is called with the transport's lock held.
/// </summary>
/// <remarks>
/// A device whose queues others serve (<see cref="VirtioDevice.HasExternalCalls"/>) has an eventfd for each queue. With MSI-X it belongs to
/// the queue's vector; without, a relay on an event loop watches it. Without a vector nobody does: the driver polls.
/// </remarks>
internal sealed class VirtioPciInterrupts : ITransportInterrupts, IDisposable
{
    private readonly MsixTable _msix;
    private readonly IInterruptLine _line;
    private readonly ushort[] _queueVectors;
    private ushort _configurationVector = NoVector;
    private volatile bool _usesMsix;

    // One for each queue; none for a device that interrupts through SignalQueue.
    private EventNotifier[] _calls = [];
    private CallRelay? _relay;
    private bool _driverReady;

    // Guards the ISR status and the line's level; a leaf but for the line's own.
    private readonly Lock _lineLock = new();
    private int _isr;
    private bool _lineDisabled;

    internal VirtioPciInterrupts(int queues, MsixTable msix, IInterruptLine line)
    {
        _msix = msix;
        _line = line;
        _queueVectors = new ushort[queues];
        _queueVectors.AsSpan().Fill(NoVector);
    }

    internal MsixTable Msix => _msix;

    /// <summary>config_msix_vector. A vector that does not exist reads back as none (§4.1.5.1.2.1).</summary>
    internal ushort ConfigurationVector
    {
        get => Volatile.Read(ref _configurationVector);
        set => Volatile.Write(ref _configurationVector, Existing(value));
    }

    /// <summary>Whether INTx is pending: status bit 3, whether or not the line is disabled.</summary>
    internal bool IsLinePending => !_usesMsix && Volatile.Read(ref _isr) != 0;

    /// <summary>Gives it the eventfds of the queues, before a driver touches the device.</summary>
    /// <param name="calls">One for each queue.</param>
    /// <param name="loop">Asked for a thread that watches them, when a driver is ready without MSI-X.</param>
    /// <param name="failed">Told, as a clause, what cost the device its interrupts.</param>
    internal void UseCalls(EventNotifier[] calls, Func<EventLoop> loop, Action<string> failed)
    {
        _calls = calls;
        _relay = new CallRelay(calls, loop, () => RaiseLine(IsrQueue), failed);
        _msix.Refused = () => failed("the host does not connect its interrupts to the guest");
    }

    internal ushort QueueVector(int queue) => Volatile.Read(ref _queueVectors[queue]);

    internal void SetQueueVector(int queue, ushort vector)
    {
        ushort before = QueueVector(queue), now = Existing(vector);
        if (before == now)
            return;
        Volatile.Write(ref _queueVectors[queue], now);
        if (_calls.Length == 0)
            return;
        if (before != NoVector)
            _msix.Disconnect(before, _calls[queue]);
        if (now != NoVector)
            _msix.Connect(now, _calls[queue]);
    }

    /// <summary>Follows the command register and MSI-X's message control.</summary>
    internal void Configure(bool usesMsix, bool functionMasked, bool lineDisabled)
    {
        // Before the line is given up: what the relay has consumed by then is on it.
        if (usesMsix)
            _relay?.Stop();
        _msix.SetFunctionMask(!usesMsix || functionMasked);
        lock (_lineLock)
        {
            _usesMsix = usesMsix;
            _lineDisabled = lineDisabled;
            if (usesMsix)
                _isr = 0;
            SetLine();
        }
        StartRelayIfDue();
    }

    /// <summary>A driver's read of the ISR status, which clears it and lowers the line. Any thread.</summary>
    internal byte TakeIsr()
    {
        lock (_lineLock)
        {
            int isr = _isr;
            _isr = 0;
            SetLine();
            return (byte)isr;
        }
    }

    public void DriverReady()
    {
        _driverReady = true;
        StartRelayIfDue();
    }

    public void InterruptQueue(int queue)
    {
        if (_usesMsix)
            _msix.Raise(QueueVector(queue));
        else
            RaiseLine(IsrQueue);
    }

    public void InterruptConfiguration()
    {
        if (_usesMsix)
            _msix.Raise(ConfigurationVector);
        else
            RaiseLine(IsrConfigurationChange);
    }

    public void ResetInterrupts()
    {
        _driverReady = false;
        _relay?.Stop();
        _ = TakeIsr();
        ConfigurationVector = NoVector;
        for (int i = 0; i < _queueVectors.Length; i++)
            ResetQueueInterrupt(i);
        _msix.ClearPending();
    }

    public void ResetQueueInterrupt(int queue)
    {
        SetQueueVector(queue, NoVector);
        if (_calls.Length != 0)
            _ = _calls[queue].TryConsume();
    }

    internal (byte Isr, ushort Configuration, ushort[] Queues) Save()
    {
        // What the relay has not come to yet.
        _relay?.Stop();
        int waiting = 0;
        if (_driverReady && !_usesMsix && Array.Exists(_calls, call => call.IsSignalled))
            waiting = IsrQueue;
        StartRelayIfDue();
        lock (_lineLock)
            return ((byte)(_isr | waiting), ConfigurationVector, [.. _queueVectors]);
    }

    internal void Restore(byte isr, ushort configuration, ushort[] queues)
    {
        ConfigurationVector = configuration;
        for (int i = 0; i < _queueVectors.Length; i++)
            SetQueueVector(i, queues[i]);
        lock (_lineLock)
        {
            _isr = _usesMsix ? 0 : isr & (IsrQueue | IsrConfigurationChange);
            SetLine();
        }
    }

    public void Dispose()
    {
        lock (_lineLock)
        {
            _isr = 0;
            SetLine();
        }
        _msix.Dispose();
    }

    private ushort Existing(ushort vector) => vector < _msix.Count ? vector : NoVector;

    private void StartRelayIfDue()
    {
        if (_driverReady && !_usesMsix)
            _relay?.Start();
    }

    private void RaiseLine(int cause)
    {
        lock (_lineLock)
        {
            // MSI-X was enabled meanwhile: the driver does not look at the ISR status, and at the queues by itself then.
            if (_usesMsix)
                return;
            _isr |= cause;
            SetLine();
        }
    }

    private void SetLine() => _line.Set(_isr != 0 && !_usesMsix && !_lineDisabled);
}
