using Vmm.Core;
using Vmm.Virtio.Devices.Pmem;

namespace Vmm.Virtio.Tests.Devices.Pmem;

/// <summary>Files as persistent memory.</summary>
public sealed unsafe class PmemFileTests : IDisposable
{
    private const ulong MiB = 1 << 20;

    private readonly string _directory = Directory.CreateTempSubdirectory("pmem").FullName;

    public void Dispose() => Directory.Delete(_directory, true);

    [Fact]
    public void What_is_written_through_the_mapping_is_in_the_file_after_a_flush()
    {
        string path = Make(4 * MiB);
        using PmemFile file = PmemFile.Open(new PmemConfig(path));
        Assert.Equal(4 * MiB, file.Length);
        Assert.Equal(0, file.HostAddress % (nint)(2 * MiB));
        *(ulong*)(file.HostAddress + 0x1230) = 0x1122334455667788;
        Assert.Equal(0, file.Flush());
        using FileStream stream = File.OpenRead(path);
        stream.Position = 0x1230;
        Span<byte> found = stackalloc byte[8];
        stream.ReadExactly(found);
        Assert.Equal(0x1122334455667788, BitConverter.ToInt64(found));
    }

    [Theory]
    [InlineData(1, 2)]
    [InlineData(4096, 2)]
    [InlineData((2 << 20) - 1, 2)]
    [InlineData((2 << 20) + 1, 4)]
    [InlineData((5 << 20) + 4097, 6)]
    public void The_guest_sees_whole_units_and_memory_beyond_the_end_of_the_file(int length, int megabytes)
    {
        string path = Make((ulong)length);
        using PmemFile file = PmemFile.Open(new PmemConfig(path));
        Assert.Equal((ulong)megabytes * MiB, file.Length);
        var all = new Span<byte>((void*)file.HostAddress, (int)file.Length);
        Assert.Equal(-1, all.IndexOfAnyExcept((byte)0));
        all.Fill(0x5A);
        Assert.Equal(0, file.Flush());
        byte[] found = File.ReadAllBytes(path);
        Assert.Equal(length, found.Length);
        Assert.Equal(-1, found.AsSpan().IndexOfAnyExcept((byte)0x5A));
    }

    [Fact]
    public void A_file_has_one_writer_or_several_readers()
    {
        string path = Make(2 * MiB);
        var writes = new PmemConfig(path);
        var reads = new PmemConfig(path, DiscardWrites: true);
        using (PmemFile.Open(writes))
        {
            Assert.Contains("in use", Assert.Throws<VmmException>(() => PmemFile.Open(writes)).Message, StringComparison.Ordinal);
            Assert.Contains("in use", Assert.Throws<VmmException>(() => PmemFile.Open(reads)).Message, StringComparison.Ordinal);
        }
        using (PmemFile.Open(reads))
        using (PmemFile.Open(reads))
            Assert.Contains("discard_writes", Assert.Throws<VmmException>(() => PmemFile.Open(writes)).Message, StringComparison.Ordinal);
        PmemFile.Open(writes).Dispose();
    }

    [Fact]
    public void Discarded_writes_are_seen_by_the_guest_only()
    {
        string path = Make(2 * MiB);
        File.WriteAllBytes(path, [1, 2, 3]);
        using PmemFile file = PmemFile.Open(new PmemConfig(path, DiscardWrites: true));
        var all = new Span<byte>((void*)file.HostAddress, (int)file.Length);
        Assert.Equal([1, 2, 3, 0], all[..4].ToArray());
        all.Fill(9);
        Assert.Equal(0, file.Flush());
        Assert.Equal(9, all[0]);
        Assert.Equal([1, 2, 3], File.ReadAllBytes(path));
    }

    [Fact]
    public void A_size_makes_a_short_file_longer()
    {
        string path = Make(3);
        using (PmemFile file = PmemFile.Open(new PmemConfig(path, 4 * MiB)))
            Assert.Equal(4 * MiB, file.Length);
        Assert.Equal((long)(4 * MiB), new FileInfo(path).Length);
        // With discarded writes the file stays as it is.
        string kept = Make(3);
        using (PmemFile file = PmemFile.Open(new PmemConfig(kept, 4 * MiB, DiscardWrites: true)))
            Assert.Equal(4 * MiB, file.Length);
        Assert.Equal(3, new FileInfo(kept).Length);
    }

    [SkippableFact]
    public void A_directory_gives_a_nameless_file()
    {
        PmemFile file;
        try
        {
            file = PmemFile.Open(new PmemConfig(_directory, 2 * MiB));
        }
        catch (VmmException e) when (e.Message.EndsWith("Operation not supported.", StringComparison.Ordinal))
        {
            throw new SkipException("The file system of the temporary directory has no O_TMPFILE.");
        }
        using (file)
        {
            *(byte*)file.HostAddress = 1;
            Assert.Equal(0, file.Flush());
            Assert.Empty(Directory.EnumerateFileSystemEntries(_directory));
        }
    }

    [Fact]
    public void Every_mistake_has_an_error_that_says_what_to_do()
    {
        Refused(new PmemConfig(""), "name one (file=)");
        Refused(new PmemConfig(Path.Combine(_directory, "none")), "it does not exist");
        Refused(new PmemConfig(_directory), "it is a directory");
        Refused(new PmemConfig(Make(0)), "it is empty");
        Refused(new PmemConfig(Make(0), 2 * MiB, DiscardWrites: true), "it is empty");
        Refused(new PmemConfig(Make(4 * MiB), 2 * MiB), "more than size=2097152");
        Refused(new PmemConfig(Make(4096), 4096), "multiple of 2M");
        Refused(new PmemConfig(Make(4096), 0), "multiple of 2M");
        Refused(new PmemConfig("/dev/null"), "as persistent memory 'pmem0'");
    }

    private static void Refused(PmemConfig config, string says) =>
        Assert.Contains(says, Assert.Throws<VmmException>(() => PmemFile.Open(config)).Message, StringComparison.Ordinal);

    private string Make(ulong length)
    {
        string path = Path.Combine(_directory, Guid.NewGuid().ToString("N"));
        using FileStream stream = File.Create(path);
        stream.SetLength((long)length);
        return path;
    }
}
