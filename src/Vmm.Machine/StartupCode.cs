using System.Buffers.Text;
using Vmm.Core.Interop;

namespace Vmm.Machine;

/// <summary>
/// Gives back the memory of code that only the start needed: reading options, loading a kernel, making a machine. It is the program's and
/// its libraries' code, unchanged from their files, so what is needed again is mapped again, from the page cache.
/// </summary>
internal static unsafe class StartupCode
{
    /// <summary>Does it; costs some microseconds now, and some dozens of page faults later.</summary>
    internal static void GiveBack()
    {
        byte[] maps;
        try
        {
            maps = File.ReadAllBytes("/proc/self/maps");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Without /proc, it stays.
            return;
        }
        foreach (Range line in maps.AsSpan().Split((byte)'\n'))
            GiveBack(maps.AsSpan(line));
    }

    /// <summary>One line: <c>START-END r-xp OFFSET DEVICE INODE PATH</c>.</summary>
    private static void GiveBack(ReadOnlySpan<byte> line)
    {
        // Private, executable and not writable: nothing in it was ever changed. Of a file, not of memory that only looks like one.
        if (line.IndexOf(" r-xp "u8) < 0 || line.IndexOf((byte)'/') < 0 || line.IndexOf("/memfd:"u8) >= 0)
            return;
        if (!Utf8Parser.TryParse(line, out ulong start, out int length, 'x') || line[length] != (byte)'-' ||
            !Utf8Parser.TryParse(line[(length + 1)..], out ulong end, out _, 'x'))
            return;
        // Safe: the pages are the file's, and read from it again when they are next run, be it by this very function.
        _ = LibC.madvise((void*)start, (nuint)(end - start), LibC.MADV_DONTNEED);
    }
}
