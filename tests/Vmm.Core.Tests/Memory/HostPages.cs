using System.Buffers.Binary;

namespace Vmm.Core.Tests.Memory;

/// <summary>Which pages of this process have memory behind them, as the kernel says in /proc/self/pagemap (proc(5)).</summary>
internal static class HostPages
{
    public const int Size = 4096;

    /// <summary>One answer for each page of a range that begins and ends with one.</summary>
    public static bool[] Present(nint address, ulong length)
    {
        byte[] entries = new byte[length / Size * 8];
        using (FileStream map = File.OpenRead("/proc/self/pagemap"))
        {
            map.Seek(address / Size * 8, SeekOrigin.Begin);
            map.ReadExactly(entries);
        }
        // Bit 63: present; bit 62: in swap.
        bool[] present = new bool[length / Size];
        for (int i = 0; i < present.Length; i++)
            present[i] = BinaryPrimitives.ReadUInt64LittleEndian(entries.AsSpan(i * 8)) >> 62 != 0;
        return present;
    }

    /// <summary>Bytes that have memory behind them.</summary>
    public static long ResidentBytes(nint address, ulong length) => Present(address, length).Count(p => p) * (long)Size;
}
