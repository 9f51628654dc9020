using System.Buffers.Binary;
using Vmm.Core.Bus;

namespace Vmm.Devices.Debugging;

/// <summary>
/// A port at which the guest ends its machine with a code of its own, as QEMU's isa-debug-exit is commonly placed (iobase=0xf4, iosize=4). The code
/// is the value as it is written, in 1, 2 or 4 bytes; 0 says that all is well. It has no state.
/// </summary>
public sealed class ExitPort : IBusDevice
{
    /// <summary>The port.</summary>
    public const ushort Port = 0xF4;

    /// <summary>How many ports the device takes.</summary>
    public const int Length = 4;

    private readonly Action<uint> _ended;

    /// <summary>Makes the port.</summary>
    /// <param name="ended">Given the code, on the vCPU's thread; returns at once.</param>
    public ExitPort(Action<uint> ended)
    {
        ArgumentNullException.ThrowIfNull(ended);
        _ended = ended;
    }

    /// <summary>Gives zeroes, by which a guest tells the port from one where nothing is.</summary>
    public void Read(ulong offset, Span<byte> data) => data.Clear();

    /// <summary>Ends the machine; a write that does not begin at the first port does nothing.</summary>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != 0)
            return;
        switch (data.Length)
        {
            case 1:
                _ended(data[0]);
                break;
            case 2:
                _ended(BinaryPrimitives.ReadUInt16LittleEndian(data));
                break;
            case >= 4:
                _ended(BinaryPrimitives.ReadUInt32LittleEndian(data));
                break;
        }
    }
}
