using Vmm.Core.Bus;

namespace Vmm.Devices.Debugging;

/// <summary>
/// The console that Bochs and QEMU have at port 0xE9: every byte written goes out, and reading tells that it is there. It has no
/// state.
/// </summary>
public sealed class DebugPort : IBusDevice
{
    /// <summary>The port.</summary>
    public const ushort Port = 0xE9;

    /// <summary>How many ports the device takes.</summary>
    public const int Length = 1;

    private readonly ICharacterSink _sink;
    private readonly Lock _lock = new();

    /// <summary>Makes the port.</summary>
    /// <param name="sink">Takes what the guest writes.</param>
    public DebugPort(ICharacterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        _sink = sink;
    }

    /// <summary>Gives the port's own number, by which guests find it.</summary>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        if (offset == 0 && !data.IsEmpty)
            data[0] = (byte)Port;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != 0 || data.IsEmpty)
            return;
        lock (_lock)
            _sink.Write(data[..1]);
    }
}
