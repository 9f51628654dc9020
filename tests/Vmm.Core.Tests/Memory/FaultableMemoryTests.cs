using Vmm.Core.Interop;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Tests.Memory;

/// <summary>Memory that is not there is an answer, not the end of the process.</summary>
public sealed unsafe class FaultableMemoryTests
{
    private const int Page = 4096;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(64)]
    [InlineData(257)]
    public void The_rest_of_a_truncated_file_is_found(int pages)
    {
        using var file = new FileDescriptor(memfd_create("faultable", MFD_CLOEXEC));
        Assert.Equal(0, ftruncate(file.Number, pages * Page));
        using HostMapping mapping = HostMapping.TryMap((nuint)(pages * Page), PROT_READ | PROT_WRITE, MAP_SHARED, file.Number)!;
        for (int left = pages; left >= 0; left--)
        {
            // A file that ends in the middle of a page still has that page.
            Assert.Equal(0, ftruncate(file.Number, left * Page - (left > 0 ? 100 : 0)));
            Assert.Equal((ulong)(left * Page), FaultableMemory.LengthLeft(mapping.Address, (ulong)(pages * Page)));
        }
        Assert.Equal(0, ftruncate(file.Number, pages * Page));
        Assert.Equal((ulong)(pages * Page), FaultableMemory.LengthLeft(mapping.Address, (ulong)(pages * Page)));
    }

    [Fact]
    public void Copies_end_where_the_memory_does()
    {
        using HostMapping reserved = HostMapping.TryMap(3 * Page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS)!;
        byte* start = reserved.Address;
        Span<byte> buffer = stackalloc byte[16];
        Assert.Equal(0, FaultableMemory.Read(start, buffer));
        Assert.Equal(0, FaultableMemory.Write(start, buffer));
        Assert.Equal(0, mprotect(start, Page, PROT_READ | PROT_WRITE));
        Assert.Equal(0, mprotect(start + (2 * Page), Page, PROT_READ));
        buffer.Fill(0x5A);
        Assert.Equal(16, FaultableMemory.Write(start, buffer));
        Assert.Equal(6, FaultableMemory.Write(start + Page - 6, buffer));
        buffer.Clear();
        Assert.Equal(6, FaultableMemory.Read(start + Page - 6, buffer));
        Assert.Equal([0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0, 0], buffer[..8].ToArray());
        // Readable only.
        Assert.Equal(16, FaultableMemory.Read(start + (2 * Page), buffer));
        Assert.Equal(0, FaultableMemory.Write(start + (2 * Page), buffer));
        Assert.Equal(0, FaultableMemory.Read(null, buffer));
    }
}
