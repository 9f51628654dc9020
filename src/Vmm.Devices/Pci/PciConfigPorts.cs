using System.Buffers.Binary;
using Vmm.Core.Bus;
using Vmm.Devices.Power;

namespace Vmm.Devices.Pci;

/// <summary>
/// Configuration mechanism #1 (PCI Local Bus 3.0 section 3.2.2.3.2): CONFIG_ADDRESS at 0xCF8, which takes 4-byte accesses only, and
/// CONFIG_DATA at 0xCFC. Accesses of other sizes to the first four ports pass by it; so the reset register at 0xCF9, which
/// takes single bytes, can be there too.
/// </summary>
public sealed class PciConfigPorts : IBusDevice, IDevice<PciConfigPortsState>
{
    // Enable, bus, device, function and register; the rest reads as zero.
    private const uint AddressBits = 0x80FF_FFFC;
    private const ulong DataOffset = 4;
    private const ulong ResetOffset = AcpiPmRegisters.ResetPort - PciRegisters.ConfigAddressPort;

    private readonly PciBus _bus;
    private readonly ResetRegister? _resetRegister;
    private uint _address;

    /// <summary>Makes the ports.</summary>
    /// <param name="bus">The root bus.</param>
    /// <param name="resetRegister">What is at port 0xCF9, or null for nothing. It is reset and saved by itself.</param>
    public PciConfigPorts(PciBus bus, ResetRegister? resetRegister = null)
    {
        ArgumentNullException.ThrowIfNull(bus);
        _bus = bus;
        _resetRegister = resetRegister;
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        if (offset >= DataOffset)
        {
            uint address = Volatile.Read(ref _address);
            if (IsData(address, offset, data.Length))
                _bus.Read(BusOf(address), FunctionOf(address), RegisterOf(address, offset), data);
            else
                data.Fill(0xFF);
        }
        else if (offset == 0 && data.Length == 4)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(data, Volatile.Read(ref _address));
        }
        else if (offset == ResetOffset && data.Length == 1 && _resetRegister is not null)
        {
            _resetRegister.Read(0, data);
        }
        else
        {
            data.Fill(0xFF);
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset >= DataOffset)
        {
            uint address = Volatile.Read(ref _address);
            if (IsData(address, offset, data.Length))
                _bus.Write(BusOf(address), FunctionOf(address), RegisterOf(address, offset), data);
        }
        else if (offset == 0 && data.Length == 4)
        {
            Volatile.Write(ref _address, BinaryPrimitives.ReadUInt32LittleEndian(data) & AddressBits);
        }
        else if (offset == ResetOffset && data.Length == 1)
        {
            _resetRegister?.Write(0, data);
        }
    }

    /// <inheritdoc/>
    public void Reset() => Volatile.Write(ref _address, 0);

    /// <inheritdoc/>
    public PciConfigPortsState Save() => new() { Address = Volatile.Read(ref _address) };

    /// <inheritdoc/>
    public void Restore(PciConfigPortsState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion("PCI configuration ports", state.Version, PciConfigPortsState.CurrentVersion);
        Volatile.Write(ref _address, state.Address & AddressBits);
    }

    // Enabled, and inside the four data ports.
    private static bool IsData(uint address, ulong offset, int length) =>
        (address & 0x8000_0000) != 0 && offset < 2 * DataOffset && offset + (ulong)length <= 2 * DataOffset;

    private static uint BusOf(uint address) => (address >> 16) & 0xFF;

    private static uint FunctionOf(uint address) => (address >> 8) & 0xFF;

    private static int RegisterOf(uint address, ulong offset) => (int)(address & 0xFC) + (int)(offset - DataOffset);
}

/// <summary>Saved state of <see cref="PciConfigPorts"/>.</summary>
public sealed record PciConfigPortsState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>CONFIG_ADDRESS.</summary>
    public uint Address { get; init; }
}
