using System.Buffers.Binary;
using System.Text;

namespace Vmm.Core.Tests.Boot;

/// <summary>One segment of an ELF file to make.</summary>
internal sealed record TestSegment(ulong Address, byte[] Bytes, ulong MemoryLength, ulong? Virtual = null, ulong? Offset = null);

/// <summary>Makes small kernels: right in all fields, for tests to break one by one.</summary>
internal static class SyntheticKernel
{
    public const ulong Preferred = 0x1000000;
    public const uint InitSize = 0x400000;
    public const int SetupSectors = 3;
    public const int KernelOffset = (SetupSectors + 1) * 512;
    public const int PayloadOffset = 0x300;

    public static byte[] BzImage(byte[]? payload = null, uint initSize = InitSize, ushort xloadflags = 3)
    {
        payload ??= Pattern(5000, 3);
        int kernelLength = (PayloadOffset + payload.Length + 64 + 15) & ~15;
        byte[] file = new byte[KernelOffset + kernelLength];
        Pattern(kernelLength, 7).CopyTo(file, KernelOffset);
        payload.CopyTo(file, KernelOffset + PayloadOffset);
        Span<byte> b = file;
        b[0x1F1] = SetupSectors;
        BinaryPrimitives.WriteUInt32LittleEndian(b[0x1F4..], (uint)(kernelLength / 16));
        BinaryPrimitives.WriteUInt16LittleEndian(b[0x1FE..], 0xAA55);
        b[0x200] = 0xEB;
        b[0x201] = 0x6A;
        "HdrS"u8.CopyTo(b[0x202..]);
        BinaryPrimitives.WriteUInt16LittleEndian(b[0x206..], 0x20F);
        b[0x211] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(b[0x22C..], 0x7FFFFFFF);
        BinaryPrimitives.WriteUInt32LittleEndian(b[0x230..], 0x200000);
        b[0x234] = 1;
        b[0x235] = 21;
        BinaryPrimitives.WriteUInt16LittleEndian(b[0x236..], xloadflags);
        BinaryPrimitives.WriteUInt32LittleEndian(b[0x238..], 2047);
        BinaryPrimitives.WriteUInt32LittleEndian(b[0x248..], PayloadOffset);
        BinaryPrimitives.WriteUInt32LittleEndian(b[0x24C..], (uint)payload.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(b[0x258..], Preferred);
        BinaryPrimitives.WriteUInt32LittleEndian(b[0x260..], initSize);
        return file;
    }

    /// <summary>Three segments as a vmlinux has them: two in place, one (per-CPU data) elsewhere, the last with a BSS.</summary>
    public static byte[] Vmlinux(bool pvh = true, int trailing = 5000, bool linux = true) => Elf(
    [
        new(Preferred, Pattern(0x3000, 11), 0x3000, 0xFFFFFFFF81000000),
        new(Preferred + 0x4000, Pattern(0x1800, 13), 0x2000, 0xFFFFFFFF81004000),
        new(Preferred + 0x6000, Pattern(0x1000, 17), 0x8000, 0, 0x20A000),
    ], Preferred + 0x40, pvh ? Notes((uint)Preferred + 0x850, linux) : null, trailing: trailing);

    public static byte[] Elf(
        TestSegment[] segments, ulong entry, byte[]? notes = null, ulong firstOffset = 0x200000, int trailing = 0)
    {
        ulong end = firstOffset;
        ulong[] offsets = new ulong[segments.Length];
        for (int i = 0; i < segments.Length; i++)
        {
            offsets[i] = segments[i].Offset ?? firstOffset + (segments[i].Address - segments[0].Address);
            end = Math.Max(end, offsets[i] + (ulong)segments[i].Bytes.Length);
        }
        ulong noteOffset = end;
        end += (ulong)(notes?.Length ?? 0) + (ulong)trailing;
        byte[] file = new byte[end];
        Span<byte> b = file;
        int count = segments.Length + (notes == null ? 0 : 1);
        "\u007fELF\u0002\u0001\u0001"u8.CopyTo(b);
        BinaryPrimitives.WriteUInt16LittleEndian(b[16..], 2);
        BinaryPrimitives.WriteUInt16LittleEndian(b[18..], 62);
        BinaryPrimitives.WriteUInt32LittleEndian(b[20..], 1);
        BinaryPrimitives.WriteUInt64LittleEndian(b[24..], entry);
        BinaryPrimitives.WriteUInt64LittleEndian(b[32..], 64);
        BinaryPrimitives.WriteUInt16LittleEndian(b[52..], 64);
        BinaryPrimitives.WriteUInt16LittleEndian(b[54..], 56);
        BinaryPrimitives.WriteUInt16LittleEndian(b[56..], (ushort)count);
        for (int i = 0; i < segments.Length; i++)
        {
            TestSegment s = segments[i];
            ProgramHeader(b[(64 + (i * 56))..], 1, offsets[i], s.Virtual ?? s.Address, s.Address, (ulong)s.Bytes.Length, s.MemoryLength, 0x1000);
            s.Bytes.CopyTo(file, (int)offsets[i]);
        }
        if (notes != null)
        {
            ProgramHeader(b[(64 + (segments.Length * 56))..], 4, noteOffset, 0, 0, (ulong)notes.Length, (ulong)notes.Length, 4);
            notes.CopyTo(file, (int)noteOffset);
        }
        if (trailing > 0)
            Pattern(trailing, 19).CopyTo(file, (int)end - trailing);
        return file;
    }

    public static byte[] Notes(uint pvhEntry, bool linux)
    {
        byte[] entry = new byte[8];
        BinaryPrimitives.WriteUInt32LittleEndian(entry, pvhEntry);
        byte[] other = Note("GNU", 3, [1, 2, 3, 4, 5]);
        byte[] guest = Note("Xen", 6, linux ? "linux\0"u8.ToArray() : "other\0"u8.ToArray());
        return [.. other, .. guest, .. Note("Xen", 18, entry)];
    }

    public static byte[] Note(string name, uint type, byte[] value)
    {
        byte[] nameBytes = Encoding.ASCII.GetBytes(name + "\0");
        int valueStart = (12 + nameBytes.Length + 3) & ~3;
        byte[] note = new byte[(valueStart + value.Length + 3) & ~3];
        BinaryPrimitives.WriteInt32LittleEndian(note, nameBytes.Length);
        BinaryPrimitives.WriteInt32LittleEndian(note.AsSpan(4), value.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(note.AsSpan(8), type);
        nameBytes.CopyTo(note, 12);
        value.CopyTo(note, valueStart);
        return note;
    }

    /// <summary>Bytes without a zero among them, so that what must be zeroed shows.</summary>
    public static byte[] Pattern(int length, int seed)
    {
        byte[] bytes = new byte[length];
        for (int i = 0; i < length; i++)
            bytes[i] = (byte)(1 + (((i * 31) + (i >> 8) + seed) % 255));
        return bytes;
    }

    private static void ProgramHeader(Span<byte> b, uint type, ulong offset, ulong vaddr, ulong paddr, ulong filesz, ulong memsz, ulong align)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(b, type);
        BinaryPrimitives.WriteUInt32LittleEndian(b[4..], 7);
        BinaryPrimitives.WriteUInt64LittleEndian(b[8..], offset);
        BinaryPrimitives.WriteUInt64LittleEndian(b[16..], vaddr);
        BinaryPrimitives.WriteUInt64LittleEndian(b[24..], paddr);
        BinaryPrimitives.WriteUInt64LittleEndian(b[32..], filesz);
        BinaryPrimitives.WriteUInt64LittleEndian(b[40..], memsz);
        BinaryPrimitives.WriteUInt64LittleEndian(b[48..], align);
    }
}
