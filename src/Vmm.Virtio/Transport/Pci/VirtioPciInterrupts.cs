using Vmm.Core.Bus;
using static Vmm.Virtio.Transport.Pci.VirtioPciRegisters;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// How a function interrupts: by MSI-X while that is enabled, else by its INTx line with the ISR status (VIRTIO 1.3 §4.1.4.5, §4.1.5.1.2).
/// Signals come from any thread and take the leaf lock of the line at most.
/// </summary>
internal sealed class VirtioPciInterrupts : ITransportInterrupts, IDisposable
{
    private readonly MsixTable _msix;
    private readonly IInterruptLine _line;
    private readonly ushort[] _queueVectors;
    private ushort _configurationVector = NoVector;
    private volatile bool _usesMsix;

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

    internal ushort QueueVector(int queue) => Volatile.Read(ref _queueVectors[queue]);

    internal void SetQueueVector(int queue, ushort vector) => Volatile.Write(ref _queueVectors[queue], Existing(vector));

    /// <summary>Follows the command register and MSI-X's message control.</summary>
    internal void Configure(bool usesMsix, bool functionMasked, bool lineDisabled)
    {
        _msix.SetFunctionMask(!usesMsix || functionMasked);
        lock (_lineLock)
        {
            _usesMsix = usesMsix;
            _lineDisabled = lineDisabled;
            if (usesMsix)
                _isr = 0;
            SetLine();
        }
    }

    /// <summary>A driver's read of the ISR status, which clears it and lowers the line.</summary>
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
        _ = TakeIsr();
        ConfigurationVector = NoVector;
        for (int i = 0; i < _queueVectors.Length; i++)
            SetQueueVector(i, NoVector);
        _msix.ClearPending();
    }

    public void ResetQueueInterrupt(int queue) => SetQueueVector(queue, NoVector);

    internal (byte Isr, ushort Configuration, ushort[] Queues) Save()
    {
        lock (_lineLock)
            return ((byte)_isr, ConfigurationVector, [.. _queueVectors]);
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
