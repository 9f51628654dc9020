using System.Buffers.Binary;
using System.Globalization;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>A memfd with a name of its own, as a back-end has one: the first 8 bytes of page n are the base plus n.</summary>
internal sealed unsafe class TestFile : IDisposable
{
    public const int Page = 4096;

    private readonly FileDescriptor _fd;

    public TestFile(int pages, ulong firstValue = 0, int seals = 0)
    {
        Name = $"window-{Guid.NewGuid():N}";
        _fd = new FileDescriptor(memfd_create(Name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
        Assert.True(Fd >= 0);
        SetLength(pages * Page);
        for (int page = 0; page < pages; page++)
            Put(page * Page, firstValue + (ulong)page);
        if (seals != 0)
            Assert.Equal(0, fcntl(Fd, F_ADD_SEALS, seals));
    }

    public string Name { get; }

    public int Fd => _fd.Number;

    public long Length => lseek(Fd, 0, SEEK_END);

    public void SetLength(long bytes) => Assert.Equal(0, ftruncate(Fd, bytes));

    public void Put(long offset, ulong value) => Assert.Equal(8, pwrite(Fd, &value, 8, offset));

    public ulong Get(long offset)
    {
        ulong value;
        Assert.Equal(8, pread(Fd, &value, 8, offset));
        return value;
    }

    /// <summary>The same file, opened anew.</summary>
    public FileDescriptor Reopen(int flags)
    {
        var again = new FileDescriptor(open($"/proc/self/fd/{Fd}", flags | O_CLOEXEC, 0));
        Assert.False(again.IsInvalid);
        return again;
    }

    public void Dispose() => _fd.Dispose();
}

/// <summary>A line of /proc/self/maps.</summary>
internal readonly record struct HostMap(ulong Start, ulong End, string Access, ulong Offset, string Path)
{
    /// <summary>What this process has mapped in a range, cut to it; parts that touch and are the same count as one.</summary>
    public static List<HostMap> In(nint address, ulong length)
    {
        ulong from = (ulong)address, to = from + length;
        List<HostMap> found = [];
        foreach (string line in File.ReadLines("/proc/self/maps"))
        {
            HostMap map = Parse(line);
            if (map.End <= from || map.Start >= to)
                continue;
            ulong start = Math.Max(map.Start, from);
            HostMap cut = map with { Start = start - from, End = Math.Min(map.End, to) - from, Offset = map.Offset + (start - map.Start) };
            if (found.Count > 0 && found[^1] is { Access: "---p", Path: "" } last && cut is { Access: "---p", Path: "" } && last.End == cut.Start)
                found[^1] = last with { End = cut.End };
            else
                found.Add(cut.Path.Length == 0 ? cut with { Offset = 0 } : cut);
        }
        return found;
    }

    /// <summary>How many mappings of this process are of a file.</summary>
    public static int CountOf(TestFile file) => File.ReadLines("/proc/self/maps").Count(line => line.Contains(file.Name, StringComparison.Ordinal));

    private static HostMap Parse(string line)
    {
        string[] parts = line.Split(' ', 6, StringSplitOptions.RemoveEmptyEntries);
        string[] range = parts[0].Split('-');
        return new HostMap(Hex(range[0]), Hex(range[1]), parts[1], Hex(parts[2]), parts.Length > 5 ? parts[5].Trim() : "");
    }

    private static ulong Hex(string text) => ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
}

/// <summary>What a guest's access without a slot sees.</summary>
internal static class BusAccessExtensions
{
    public static ulong Load(this Core.Bus.IBusDevice device, ulong offset)
    {
        Span<byte> data = stackalloc byte[8];
        device.Read(offset, data);
        return BinaryPrimitives.ReadUInt64LittleEndian(data);
    }

    public static void Store(this Core.Bus.IBusDevice device, ulong offset, ulong value)
    {
        Span<byte> data = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(data, value);
        device.Write(offset, data);
    }
}
