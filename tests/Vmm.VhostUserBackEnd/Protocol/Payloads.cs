using System.Buffers.Binary;

namespace Vmm.VhostUserBackEnd.Protocol;

// One type for each payload of vhost-user.rst, written from its text and sharing nothing with the front-end: what both get wrong in the same way
// no test would find. Integers are in native order, which is little endian wherever this runs.

/// <summary>The header that precedes every payload.</summary>
/// <param name="Request">Of either enumeration of requests.</param>
/// <param name="Flags">See <see cref="MessageFlags"/>.</param>
/// <param name="Size">Of the payload, in bytes.</param>
public readonly record struct MessageHeader(uint Request, uint Flags, uint Size)
{
    public const int Length = 12;

    public static MessageHeader Read(ReadOnlySpan<byte> data) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(data),
        BinaryPrimitives.ReadUInt32LittleEndian(data[4..]),
        BinaryPrimitives.ReadUInt32LittleEndian(data[8..]));

    public void Write(Span<byte> data)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(data, Request);
        BinaryPrimitives.WriteUInt32LittleEndian(data[4..], Flags);
        BinaryPrimitives.WriteUInt32LittleEndian(data[8..], Size);
    }
}

/// <summary>A vring state description: a queue and a number that belongs to it.</summary>
public readonly record struct VringState(uint Index, uint Num)
{
    public const int Length = 8;

    public static VringState Read(ReadOnlySpan<byte> data) =>
        new(BinaryPrimitives.ReadUInt32LittleEndian(data), BinaryPrimitives.ReadUInt32LittleEndian(data[4..]));

    public byte[] ToBytes()
    {
        var data = new byte[Length];
        BinaryPrimitives.WriteUInt32LittleEndian(data, Index);
        BinaryPrimitives.WriteUInt32LittleEndian(data.AsSpan(4), Num);
        return data;
    }
}

/// <summary>A vring address description; the ring addresses are the front-end's user addresses, the log address is a guest's.</summary>
public readonly record struct VringAddress(uint Index, uint Flags, ulong Descriptor, ulong Used, ulong Available, ulong Log)
{
    public const int Length = 40;

    /// <summary>VHOST_VRING_F_LOG in <see cref="Flags"/>: writes to the used ring are logged from <see cref="Log"/>.</summary>
    public const uint FlagLog = 1;

    public static VringAddress Read(ReadOnlySpan<byte> data) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(data),
        BinaryPrimitives.ReadUInt32LittleEndian(data[4..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[8..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[16..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[24..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[32..]));

    public byte[] ToBytes()
    {
        var data = new byte[Length];
        BinaryPrimitives.WriteUInt32LittleEndian(data, Index);
        BinaryPrimitives.WriteUInt32LittleEndian(data.AsSpan(4), Flags);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(8), Descriptor);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(16), Used);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(24), Available);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(32), Log);
        return data;
    }
}

/// <summary>A memory region description.</summary>
public readonly record struct MemoryRegionDescription(ulong GuestAddress, ulong Size, ulong UserAddress, ulong MmapOffset)
{
    public const int Length = 32;

    public static MemoryRegionDescription Read(ReadOnlySpan<byte> data) => new(
        BinaryPrimitives.ReadUInt64LittleEndian(data),
        BinaryPrimitives.ReadUInt64LittleEndian(data[8..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[16..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[24..]));

    public void Write(Span<byte> data)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(data, GuestAddress);
        BinaryPrimitives.WriteUInt64LittleEndian(data[8..], Size);
        BinaryPrimitives.WriteUInt64LittleEndian(data[16..], UserAddress);
        BinaryPrimitives.WriteUInt64LittleEndian(data[24..], MmapOffset);
    }

    /// <summary>A single memory region description: what ADD_MEM_REG and REM_MEM_REG carry.</summary>
    public byte[] ToSingleBytes()
    {
        var data = new byte[8 + Length];
        Write(data.AsSpan(8));
        return data;
    }

    /// <summary>A multiple memory regions description: what SET_MEM_TABLE carries.</summary>
    public static byte[] ToTableBytes(params ReadOnlySpan<MemoryRegionDescription> regions)
    {
        var data = new byte[8 + (regions.Length * Length)];
        BinaryPrimitives.WriteUInt32LittleEndian(data, (uint)regions.Length);
        for (int i = 0; i < regions.Length; i++)
            regions[i].Write(data.AsSpan(8 + (i * Length)));
        return data;
    }
}

/// <summary>A log description.</summary>
public readonly record struct LogDescription(ulong MmapSize, ulong MmapOffset)
{
    public const int Length = 16;

    public static LogDescription Read(ReadOnlySpan<byte> data) =>
        new(BinaryPrimitives.ReadUInt64LittleEndian(data), BinaryPrimitives.ReadUInt64LittleEndian(data[8..]));

    public byte[] ToBytes()
    {
        var data = new byte[Length];
        BinaryPrimitives.WriteUInt64LittleEndian(data, MmapSize);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(8), MmapOffset);
        return data;
    }
}

/// <summary>The fixed part of a virtio device configuration space message; the bytes follow it.</summary>
public readonly record struct ConfigHeader(uint Offset, uint Size, uint Flags)
{
    public const int Length = 12;

    public static ConfigHeader Read(ReadOnlySpan<byte> data) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(data),
        BinaryPrimitives.ReadUInt32LittleEndian(data[4..]),
        BinaryPrimitives.ReadUInt32LittleEndian(data[8..]));

    public byte[] ToBytes(ReadOnlySpan<byte> payload)
    {
        var data = new byte[Length + payload.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(data, Offset);
        BinaryPrimitives.WriteUInt32LittleEndian(data.AsSpan(4), Size);
        BinaryPrimitives.WriteUInt32LittleEndian(data.AsSpan(8), Flags);
        payload.CopyTo(data.AsSpan(Length));
        return data;
    }
}

/// <summary>An inflight description.</summary>
public readonly record struct InflightDescription(ulong MmapSize, ulong MmapOffset, ushort NumQueues, ushort QueueSize)
{
    public const int Length = 24;

    /// <summary>What the structure has without the padding that a C compiler adds to it; back-ends send either.</summary>
    public const int PackedLength = 20;

    public static InflightDescription Read(ReadOnlySpan<byte> data) => new(
        BinaryPrimitives.ReadUInt64LittleEndian(data),
        BinaryPrimitives.ReadUInt64LittleEndian(data[8..]),
        BinaryPrimitives.ReadUInt16LittleEndian(data[16..]),
        BinaryPrimitives.ReadUInt16LittleEndian(data[18..]));

    public byte[] ToBytes()
    {
        var data = new byte[Length];
        BinaryPrimitives.WriteUInt64LittleEndian(data, MmapSize);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(8), MmapOffset);
        BinaryPrimitives.WriteUInt16LittleEndian(data.AsSpan(16), NumQueues);
        BinaryPrimitives.WriteUInt16LittleEndian(data.AsSpan(18), QueueSize);
        return data;
    }
}

/// <summary>Device state transfer parameters.</summary>
/// <param name="Direction">0 saves, 1 loads.</param>
/// <param name="Phase">0: the device is stopped.</param>
public readonly record struct DeviceStateTransfer(uint Direction, uint Phase)
{
    public const int Length = 8;

    public static DeviceStateTransfer Read(ReadOnlySpan<byte> data) =>
        new(BinaryPrimitives.ReadUInt32LittleEndian(data), BinaryPrimitives.ReadUInt32LittleEndian(data[4..]));

    public byte[] ToBytes() => new VringState(Direction, Phase).ToBytes();
}

/// <summary>An mmap request: what SHMEM_MAP and SHMEM_UNMAP carry.</summary>
/// <param name="ShmId">Which shared memory region.</param>
/// <param name="FdOffset">Where the mapping starts in the file, in bytes.</param>
/// <param name="ShmOffset">Where it goes in the region, in bytes.</param>
/// <param name="Size">In bytes.</param>
/// <param name="Flags">Bit 0: writable.</param>
public readonly record struct ShmemMapping(byte ShmId, ulong FdOffset, ulong ShmOffset, ulong Size, ulong Flags)
{
    public const int Length = 40;

    /// <summary>VHOST_USER_FLAG_MAP_RW.</summary>
    public const ulong ReadWrite = 1;

    public static ShmemMapping Read(ReadOnlySpan<byte> data) => new(
        data[0],
        BinaryPrimitives.ReadUInt64LittleEndian(data[8..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[16..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[24..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[32..]));

    public byte[] ToBytes()
    {
        var data = new byte[Length];
        data[0] = ShmId;
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(8), FdOffset);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(16), ShmOffset);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(24), Size);
        BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(32), Flags);
        return data;
    }
}

/// <summary>A VIRTIO shared memory region configuration.</summary>
public static class ShmemConfig
{
    /// <summary>The most regions a device can have, and the size of the table.</summary>
    public const int MaximumRegions = 256;

    public const int Length = 8 + (MaximumRegions * 8);

    /// <param name="sizes">The size of each region under its identifier; 0 where there is none.</param>
    /// <param name="count">What the message says about how many there are; those that are not 0 where it is null.</param>
    public static byte[] ToBytes(ReadOnlySpan<ulong> sizes, uint? count = null)
    {
        var data = new byte[Length];
        uint used = 0;
        for (int i = 0; i < sizes.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(data.AsSpan(8 + (i * 8)), sizes[i]);
            used += sizes[i] == 0 ? 0u : 1u;
        }
        BinaryPrimitives.WriteUInt32LittleEndian(data, count ?? used);
        return data;
    }
}

/// <summary>A plain 64-bit number: what most replies are.</summary>
public static class U64
{
    public const int Length = 8;

    public static ulong Read(ReadOnlySpan<byte> data) => BinaryPrimitives.ReadUInt64LittleEndian(data);

    public static byte[] ToBytes(ulong value)
    {
        var data = new byte[Length];
        BinaryPrimitives.WriteUInt64LittleEndian(data, value);
        return data;
    }
}
