using Vmm.Core.Bus;
using Vmm.Core.Events;
using static Vmm.Virtio.Transport.Mmio.VirtioMmioRegisters;

namespace Vmm.Virtio.Transport.Mmio;

/// <summary>
/// InterruptStatus and InterruptACK (VIRTIO 1.3 §4.2.2). A write that acknowledges used buffers and nothing else, as drivers do after nearly
/// each interrupt, is an ioeventfd: it costs no exit to this program, which counts such writes only when it needs to know.
/// </summary>
/// <remarks>
/// When it needs to: a driver reads the register again, and no buffer was used since it last did. Then the bit is clear if as many
/// acknowledgements came as reads had shown it anew. So a bit is never lost; a driver that reads more often than it acknowledges may see one
/// for which no interrupt is pending, looks at its queues for nothing, and acknowledges that too. Any thread.
/// </remarks>
internal sealed class InterruptStatusRegister : IDisposable
{
    // Set with UsedBuffer, until the driver has read it.
    private const uint Unseen = 1 << 16;

    private readonly EventNotifier _acknowledged = new();
    private readonly IDoorbellRegistrar _doorbells;
    private readonly ulong _address;
    private readonly bool _connected;
    private uint _bits;
    // Reads that showed UsedBuffer anew, less the acknowledgements that were counted.
    private int _shown;

    /// <summary>Connects it.</summary>
    /// <param name="doorbells">Where this fails, all writes come by <see cref="Acknowledge"/>.</param>
    /// <param name="address">Guest address of InterruptACK.</param>
    public InterruptStatusRegister(IDoorbellRegistrar doorbells, ulong address)
    {
        (_doorbells, _address) = (doorbells, address);
        _connected = doorbells.TryConnect(_acknowledged, address, sizeof(uint), UsedBuffer);
    }

    /// <summary>What is pending: causes that were not acknowledged.</summary>
    public uint Pending
    {
        get
        {
            uint bits = Volatile.Read(ref _bits);
            if ((bits & (UsedBuffer | Unseen)) == UsedBuffer)
                bits = CountAcknowledgements(bits);
            return bits & (UsedBuffer | ConfigurationChange);
        }
    }

    /// <summary>The driver reads InterruptStatus.</summary>
    public uint Read()
    {
        if ((Volatile.Read(ref _bits) & Unseen) == 0)
            return Pending;
        uint before = Interlocked.And(ref _bits, ~Unseen);
        if ((before & Unseen) != 0)
            Interlocked.Increment(ref _shown);
        return before & (UsedBuffer | ConfigurationChange);
    }

    /// <summary>The driver writes to InterruptACK, and the write came here.</summary>
    public void Acknowledge(uint causes)
    {
        if ((causes & UsedBuffer) != 0)
            Forget();
        Interlocked.And(ref _bits, ~(causes & (UsedBuffer | ConfigurationChange)));
    }

    /// <summary>Something is to be told.</summary>
    public void Set(uint causes) =>
        Interlocked.Or(ref _bits, (causes & (UsedBuffer | ConfigurationChange)) | ((causes & UsedBuffer) != 0 ? Unseen : 0));

    /// <summary>Nothing is pending.</summary>
    public void Clear()
    {
        Forget();
        Interlocked.Exchange(ref _bits, 0);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_connected)
            _doorbells.Disconnect(_acknowledged, _address, sizeof(uint), UsedBuffer);
        _acknowledged.Dispose();
    }

    private uint CountAcknowledgements(uint bits)
    {
        ulong count = _acknowledged.Consume();
        if (count == 0)
            return bits;
        if (Interlocked.Add(ref _shown, -(int)Math.Min(count, int.MaxValue / 2)) > 0)
            return bits;
        Interlocked.Exchange(ref _shown, 0);
        // Not where a buffer was used since.
        return Interlocked.CompareExchange(ref _bits, bits & ~UsedBuffer, bits) == bits ? bits & ~UsedBuffer : bits;
    }

    private void Forget()
    {
        _ = _acknowledged.Consume();
        Interlocked.Exchange(ref _shown, 0);
        Interlocked.And(ref _bits, ~Unseen);
    }
}
