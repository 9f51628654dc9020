using System.Buffers.Binary;
using System.Numerics;
using Vmm.Core;
using static Vmm.Devices.Pci.PciRegisters;

namespace Vmm.Devices.Pci;

/// <summary>
/// The 4 KiB of configuration space of a type 0 function: what is in it, what of it a guest may write, base address registers that
/// can be sized, and the lists of capabilities. It is set up once; then its function calls it under its own lock.
/// </summary>
public sealed class PciConfigurationSpace
{
    private const ushort CommandBits = CommandIo | CommandMemory | CommandBusMaster | CommandParity | CommandSerr | CommandInterruptDisable;
    private const int BarEnd = Bar0 + 4 * BarCount;

    private readonly byte[] _bytes = new byte[Size];
    private readonly byte[] _writable = new byte[Size];

    // What the writable bits are after a reset; the rest of this array is not used.
    private readonly byte[] _initial = new byte[Size];
    private readonly PciBarKind[] _kinds = new PciBarKind[BarCount];
    private readonly ulong[] _sizes = new ulong[BarCount];

    // Offset of the next capability, and of the byte or word that will point to it.
    private int _nextCapability = FirstCapability;
    private int _capabilityLink = CapabilitiesPointer;
    private int _nextExtended = FirstExtendedCapability;
    private int _lastExtended;

    /// <summary>Makes the space of a function without base address registers and capabilities.</summary>
    public PciConfigurationSpace(PciIdentity identity)
    {
        Store16(VendorId, identity.VendorId);
        Store16(DeviceId, identity.DeviceId);
        Store32(RevisionId, (identity.ClassCode << 8) | identity.RevisionId);
        Store16(SubsystemVendorId, identity.SubsystemVendorId);
        Store16(SubsystemVendorId + 2, identity.SubsystemId);
        _bytes[InterruptPin] = identity.InterruptPin;
        BinaryPrimitives.WriteUInt16LittleEndian(_writable.AsSpan(Command), CommandBits);
        _writable[CacheLineSize] = 0xFF;
        _writable[InterruptLine] = 0xFF;
    }

    /// <summary>Adds a base address register.</summary>
    /// <param name="index">0 to 5; a 64-bit one also takes the next.</param>
    /// <param name="kind">What it asks for.</param>
    /// <param name="size">A power of two: ports from 4 to 256, memory from 16 bytes, below 4 GiB for 32-bit ones.</param>
    /// <param name="prefetchable">Reading memory there has no side effects.</param>
    /// <exception cref="ArgumentException">The register is taken, or the size is not one of these.</exception>
    public void AddBar(int index, PciBarKind kind, ulong size, bool prefetchable = false)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, kind == PciBarKind.Memory64 ? BarCount - 1 : BarCount);
        (ulong least, ulong most) = kind switch
        {
            PciBarKind.Io => (4UL, 256UL),
            PciBarKind.Memory32 => (16UL, 1UL << 31),
            PciBarKind.Memory64 => (16UL, 1UL << 63),
            _ => throw new ArgumentException("A base address register asks for ports or memory.", nameof(kind)),
        };
        if (!BitOperations.IsPow2(size) || size < least || size > most)
            throw new ArgumentOutOfRangeException(nameof(size), size, "Not a power of two that such a register can have.");
        if (IsBarTaken(index) || (kind == PciBarKind.Memory64 && IsBarTaken(index + 1)))
            throw new ArgumentException($"Base address register {index} is taken.", nameof(index));

        _kinds[index] = kind;
        _sizes[index] = size;
        int at = Bar0 + 4 * index;
        uint type = kind switch { PciBarKind.Io => 1u, PciBarKind.Memory64 => 4u, _ => 0u };
        Store32(at, type | (prefetchable && kind != PciBarKind.Io ? 8u : 0u));
        ulong mask = ~(size - 1);
        BinaryPrimitives.WriteUInt32LittleEndian(_writable.AsSpan(at), (uint)mask);
        if (kind == PciBarKind.Memory64)
            BinaryPrimitives.WriteUInt32LittleEndian(_writable.AsSpan(at + 4), (uint)(mask >> 32));
    }

    /// <summary>
    /// Adds a register of the device's own, outside of all capabilities. A write to it counts as <see cref="PciConfigurationChanges.Capabilities"/>.
    /// </summary>
    /// <param name="offset">Its first byte, from 0x40 on; capabilities are added up from there.</param>
    /// <param name="value">What it is after a reset.</param>
    /// <param name="writable">The bits that the guest may change.</param>
    /// <exception cref="ArgumentException">It is not there, or of two lengths.</exception>
    public void AddRegister(int offset, ReadOnlySpan<byte> value, ReadOnlySpan<byte> writable)
    {
        if (offset < FirstCapability || offset + value.Length > LegacySize || writable.Length > value.Length)
            throw new ArgumentException($"A register of {value.Length} bytes does not fit at offset 0x{offset:x}.", nameof(offset));
        Define(offset, value, writable);
    }

    /// <summary>Adds a capability to the list (PCI Local Bus 3.0 section 6.7), after those that are there.</summary>
    /// <param name="id">What it is.</param>
    /// <param name="body">Its bytes after the id and the link.</param>
    /// <param name="writable">The bits of <paramref name="body"/> that the guest may change; those past its end are none.</param>
    /// <returns>Its offset in configuration space, a multiple of 4; the body begins 2 bytes further on.</returns>
    /// <exception cref="ArgumentException">It does not fit.</exception>
    public int AddCapability(byte id, ReadOnlySpan<byte> body, ReadOnlySpan<byte> writable = default)
    {
        int at = _nextCapability;
        int end = at + 2 + body.Length;
        if (end > LegacySize || writable.Length > body.Length)
            throw new ArgumentException($"Capability 0x{id:x2} with {body.Length} bytes does not fit at offset 0x{at:x}.", nameof(body));
        _bytes[_capabilityLink] = (byte)at;
        _bytes[at] = id;
        Define(at + 2, body, writable);
        _capabilityLink = at + 1;
        _nextCapability = Align4(end);
        Store16(Status, (ushort)(ReadUInt16(Status) | StatusCapabilities));
        return at;
    }

    /// <summary>Adds an extended capability (PCI Express Base 5.0 section 7.6).</summary>
    /// <param name="id">What it is.</param>
    /// <param name="version">Its version, 0 to 15.</param>
    /// <param name="body">Its bytes after the 4-byte header.</param>
    /// <param name="writable">The bits of <paramref name="body"/> that the guest may change.</param>
    /// <returns>Its offset; the body begins 4 bytes further on.</returns>
    /// <exception cref="ArgumentException">It does not fit.</exception>
    public int AddExtendedCapability(ushort id, byte version, ReadOnlySpan<byte> body, ReadOnlySpan<byte> writable = default)
    {
        int at = _nextExtended;
        int end = at + 4 + body.Length;
        if (end > Size || writable.Length > body.Length || version > 15)
        {
            throw new ArgumentException(
                $"Extended capability 0x{id:x4} with {body.Length} bytes does not fit at offset 0x{at:x}.", nameof(body));
        }
        Store32(at, id | ((uint)version << 16));
        if (_lastExtended != 0)
            Store32(_lastExtended, ReadUInt32(_lastExtended) | ((uint)at << 20));
        Define(at + 4, body, writable);
        _lastExtended = at;
        _nextExtended = Align4(end);
        return at;
    }

    /// <summary>A guest's read; ones for what lies outside.</summary>
    public void Read(int offset, Span<byte> data)
    {
        if ((uint)offset > (uint)(Size - data.Length))
            data.Fill(0xFF);
        else
            _bytes.AsSpan(offset, data.Length).CopyTo(data);
    }

    /// <summary>A guest's write: changes the bits that it may, drops the others.</summary>
    public PciConfigurationChanges Write(int offset, ReadOnlySpan<byte> data)
    {
        if ((uint)offset > (uint)(Size - data.Length))
            return PciConfigurationChanges.None;
        var changes = PciConfigurationChanges.None;
        for (int i = 0; i < data.Length; i++)
        {
            int at = offset + i;
            byte old = _bytes[at];
            byte now = (byte)((old & ~_writable[at]) | (data[i] & _writable[at]));
            _bytes[at] = now;
            if (at >= FirstCapability)
                changes |= PciConfigurationChanges.Capabilities;
            else if (now != old && at is (Command or Command + 1))
                changes |= PciConfigurationChanges.Command;
            else if (now != old && at is >= Bar0 and < BarEnd)
                changes |= PciConfigurationChanges.Bars;
        }
        return changes;
    }

    /// <summary>A base address register as it is now.</summary>
    /// <param name="index">0 to 5.</param>
    public PciBar GetBar(int index)
    {
        PciBarKind kind = _kinds[index];
        if (kind == PciBarKind.None)
            return default;
        ulong address = ReadUInt32(Bar0 + 4 * index);
        if (kind == PciBarKind.Memory64)
            address |= (ulong)ReadUInt32(Bar0 + 4 * index + 4) << 32;
        address &= ~(_sizes[index] - 1);
        ushort enable = kind == PciBarKind.Io ? CommandIo : CommandMemory;
        return new PciBar(kind, address, _sizes[index], (ReadUInt16(Command) & enable) != 0);
    }

    /// <summary>Reads 16 bits, for the function itself.</summary>
    public ushort ReadUInt16(int offset) => BinaryPrimitives.ReadUInt16LittleEndian(_bytes.AsSpan(offset));

    /// <summary>Reads 32 bits, for the function itself.</summary>
    public uint ReadUInt32(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(_bytes.AsSpan(offset));

    /// <summary>Sets 16 bits whatever a guest may write, for the function itself.</summary>
    public void Store16(int offset, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(offset), value);

    /// <summary>Sets 32 bits whatever a guest may write, for the function itself.</summary>
    public void Store32(int offset, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(_bytes.AsSpan(offset), value);

    /// <summary>Shows an interrupt as pending or not (PCI Local Bus 3.0 section 6.2.3).</summary>
    public void SetInterruptStatus(bool pending)
    {
        int status = ReadUInt16(Status);
        Store16(Status, (ushort)(pending ? status | StatusInterrupt : status & ~StatusInterrupt));
    }

    /// <summary>Puts every bit that a guest may write back to what it was first.</summary>
    public void Reset()
    {
        for (int i = 0; i < Size; i++)
            _bytes[i] = (byte)((_bytes[i] & ~_writable[i]) | (_initial[i] & _writable[i]));
        SetInterruptStatus(false);
    }

    /// <summary>Copies the space.</summary>
    public PciConfigurationState Save() =>
        new() { Bytes = _bytes[..(_lastExtended != 0 ? _nextExtended : LegacySize)] };

    /// <summary>Puts back the bits that a guest may write. The others are the function's and are not taken from a state.</summary>
    /// <exception cref="VmmException">The state is of another function, or damaged.</exception>
    public void Restore(PciConfigurationState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        const string name = "PCI configuration space";
        SavedState.RequireVersion(name, state.Version, PciConfigurationState.CurrentVersion);
        int length = _lastExtended != 0 ? _nextExtended : LegacySize;
        SavedState.RequireLength(name, "bytes", state.Bytes, length, length);
        uint identity = BinaryPrimitives.ReadUInt32LittleEndian(state.Bytes);
        if (identity != ReadUInt32(VendorId))
        {
            throw VmmException.Configuration(
                $"Cannot restore the PCI function {ReadUInt16(VendorId):x4}:{ReadUInt16(DeviceId):x4}: the saved state is of " +
                $"{(ushort)identity:x4}:{identity >> 16:x4}. Restore with the same devices, in the same order.");
        }
        for (int i = 0; i < length; i++)
            _bytes[i] = (byte)((_bytes[i] & ~_writable[i]) | (state.Bytes[i] & _writable[i]));
    }

    private static int Align4(int offset) => (offset + 3) & ~3;

    private bool IsBarTaken(int index) =>
        _kinds[index] != PciBarKind.None || (index > 0 && _kinds[index - 1] == PciBarKind.Memory64);

    private void Define(int at, ReadOnlySpan<byte> body, ReadOnlySpan<byte> writable)
    {
        body.CopyTo(_bytes.AsSpan(at));
        body.CopyTo(_initial.AsSpan(at));
        writable.CopyTo(_writable.AsSpan(at));
    }
}
