using System.Globalization;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Tests.Memory;

/// <summary>How guest RAM is backed by the host.</summary>
public sealed unsafe class GuestRamTests
{
    private const ulong MiB = 1 << 20;

    [Fact]
    public void Private_memory_is_zeroed_writable_and_has_no_file()
    {
        using GuestRam ram = GuestRam.Allocate([(0, 4 * MiB)], default);
        GuestRegion region = Assert.Single(ram.Memory.Regions);
        Assert.Equal(-1, region.FileDescriptor);
        Assert.True(ram.Memory.TryGetSpan(0, (int)(4 * MiB), out Span<byte> all));
        Assert.Equal(-1, all.IndexOfAnyExcept((byte)0));
        ram.Memory.Write(4 * MiB - 8, ulong.MaxValue);
        Assert.False(ram.Memory.TryWrite(4 * MiB - 7, ulong.MaxValue));
    }

    [Fact]
    public void Shared_memory_is_a_file_that_nobody_can_resize()
    {
        using GuestRam ram = GuestRam.Allocate([(0, 4 * MiB)], new GuestRamOptions(Shared: true));
        GuestRegion region = Assert.Single(ram.Memory.Regions);
        Assert.Equal(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, fcntl(region.FileDescriptor, F_GET_SEALS, 0));
        Assert.Equal(-1, ftruncate(region.FileDescriptor, 0));
        Assert.Equal(EPERM, errno);
        Assert.Equal(-1, ftruncate(region.FileDescriptor, (long)(8 * MiB)));
        Assert.Equal(EPERM, errno);
        // Whoever maps the file sees what the guest writes, and the other way round.
        using HostMapping other = HostMapping.TryMap((nuint)(4 * MiB), PROT_READ | PROT_WRITE, MAP_SHARED, region.FileDescriptor)!;
        ram.Memory.Write(0x1234, 0xCAFEF00DU);
        Assert.Equal(0xCAFEF00D, *(uint*)(other.Address + 0x1234));
        *(other.Address + 0x2000) = 0x5A;
        Assert.True(ram.Memory.TryRead(0x2000, out byte seen));
        Assert.Equal(0x5A, seen);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void More_than_4_GiB_is_one_mapping_in_two_ranges(bool shared)
    {
        const ulong GiB = 1UL << 30;
        (ulong, ulong)[] ranges = [(0, 3 * GiB), (4 * GiB, 2 * GiB)];
        using GuestRam ram = GuestRam.Allocate(ranges, new GuestRamOptions(Shared: shared));
        Assert.Equal(5 * GiB, ram.Memory.Size);
        Assert.Equal(ranges, ram.Memory.Regions.Select(r => (r.Start, r.Length)));
        Assert.Equal(new ulong[] { 0, 3 * GiB }, ram.Memory.Regions.Select(r => r.FileOffset));
        Assert.Equal(3 * GiB, (ulong)(ram.Memory.Regions[1].HostAddress - ram.Memory.Regions[0].HostAddress));
        ram.Memory.Write((6 * GiB) - 8, 0x1122334455667788UL);
        Assert.True(ram.Memory.TryRead((6 * GiB) - 8, out ulong value));
        Assert.Equal(0x1122334455667788UL, value);
        Assert.False(ram.Memory.Contains(3 * GiB, 1));
        Assert.False(ram.Memory.Contains((4 * GiB) - 1, 2));
        Assert.False(ram.Memory.Contains(6 * GiB, 1));
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(true, true)]
    public void Only_prefault_touches_memory_before_the_guest_does(bool shared, bool prefault)
    {
        using GuestRam ram = GuestRam.Allocate([(0, 32 * MiB)], new GuestRamOptions(Shared: shared, Prefault: prefault));
        ulong resident = ResidentBytes(ram.Memory.Regions[0].HostAddress);
        Assert.Equal(prefault ? 32 * MiB : 0, resident);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void Without_reserved_huge_pages_the_error_says_what_to_do(bool shared)
    {
        Skip.If(HugePages("Total") > 0, "This host has huge pages.");
        VmmException error = Assert.Throws<VmmException>(() => GuestRam.Allocate([(0, 64 * MiB)], new GuestRamOptions(Shared: shared, HugePages: true, HugePageSize: 2 * MiB)));
        Assert.Equal(VmmErrorKind.Host, error.Kind);
        Assert.StartsWith("Cannot allocate 64 MiB of guest memory in huge pages of 2 MiB: ", error.Message, StringComparison.Ordinal);
        Assert.EndsWith("; reserve enough of them (/proc/sys/vm/nr_hugepages) or use hugepages=off.", error.Message, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData(false, 0)]
    [InlineData(true, 0)]
    [InlineData(false, 2)]
    [InlineData(true, 2)]
    public void Huge_pages_that_memory_does_not_fill_are_given_back(bool shared, ulong pageMegabytes)
    {
        Skip.If(HugePages("Free") < 4, "This host has fewer than 4 free huge pages; reserve them with: sysctl vm.nr_hugepages=8.");
        long free = HugePages("Free");
        using (GuestRam ram = GuestRam.Allocate([(0, MiB), (4 * MiB, 4 * MiB)], new GuestRamOptions(Shared: shared, HugePages: true, HugePageSize: pageMegabytes * MiB)))
        {
            ram.Memory.Write(8 * MiB - 8, 1UL);
            Assert.True(HugePages("Free") < free);
            Assert.Equal(5 * MiB, ram.Memory.Size);
        }
        Assert.Equal(free, HugePages("Free"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_region_to_plug_memory_into_is_memory_of_its_own_that_can_be_given_back(bool shared)
    {
        using GuestRam ram = GuestRam.Allocate([(0, 4 * MiB)], new GuestRamOptions(Shared: shared, Prefault: true), new AddressRange(1UL << 32, 64 * MiB));
        GuestRegion region = ram.Hotplug!;
        Assert.Equal((1UL << 32, 64 * MiB, 0UL), (region.Start, region.Length, region.FileOffset));
        Assert.Same(region, ram.Memory.Regions[1]);
        Assert.Equal(shared, region.FileDescriptor >= 0 && region.FileDescriptor != ram.Memory.Regions[0].FileDescriptor);
        Assert.Equal(0UL, ResidentBytes(region.HostAddress));
        Assert.True(ram.Memory.TryGetSpan(1UL << 32, (int)(8 * MiB), out Span<byte> eight));
        eight.Fill(0xA5);
        // Huge pages of the host may round this up.
        Assert.InRange(ResidentBytes(region.HostAddress), 8 * MiB, 10 * MiB);
        Assert.True(region.TryDiscard(2 * MiB, 6 * MiB));
        Assert.InRange(ResidentBytes(region.HostAddress), 2 * MiB, 4 * MiB);
        Assert.Equal(0xA5, eight[(int)(2 * MiB) - 1]);
        Assert.Equal(0, eight[(int)(2 * MiB)]);
        Assert.Throws<ArgumentOutOfRangeException>(() => region.TryDiscard(63 * MiB, 2 * MiB));
        Assert.Throws<ArgumentOutOfRangeException>(() => region.TryDiscard(2 * MiB, ulong.MaxValue - MiB));
    }

    [Fact]
    public void Nothing_can_be_plugged_into_a_guest_of_reserved_huge_pages() => Assert.Equal(
        VmmErrorKind.Configuration,
        Assert.Throws<VmmException>(() => GuestRam.Allocate([(0, 64 * MiB)], new GuestRamOptions(HugePages: true), new AddressRange(1UL << 32, 64 * MiB))).Kind);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void More_than_the_address_space_is_refused(bool shared)
    {
        VmmException error = Assert.Throws<VmmException>(() => GuestRam.Allocate([(0, 1UL << 50)], new GuestRamOptions(Shared: shared)));
        Assert.Equal(VmmErrorKind.Host, error.Kind);
        Assert.StartsWith($"Cannot allocate {1UL << 30} MiB of guest memory: ", error.Message, StringComparison.Ordinal);
        Assert.Contains("--memory size=", error.Message, StringComparison.Ordinal);
    }

    private static long HugePages(string what)
    {
        string? line = File.ReadLines("/proc/meminfo").FirstOrDefault(l => l.StartsWith($"HugePages_{what}:", StringComparison.Ordinal));
        return line == null ? 0 : long.Parse(line.Split(':')[1], CultureInfo.InvariantCulture);
    }

    private static ulong ResidentBytes(nint address)
    {
        string start = address.ToString("x", CultureInfo.InvariantCulture);
        bool inside = false;
        foreach (string line in File.ReadLines("/proc/self/smaps"))
        {
            if (line.Split(' ')[0] is var head && head.Contains('-', StringComparison.Ordinal))
                inside = head.StartsWith(start + "-", StringComparison.Ordinal);
            else if (inside && line.StartsWith("Rss:", StringComparison.Ordinal))
                return ulong.Parse(line.Split(':')[1].Replace("kB", "", StringComparison.Ordinal), CultureInfo.InvariantCulture) << 10;
        }
        throw new InvalidOperationException($"No mapping starts at {start}.");
    }
}
