using System.Globalization;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>Looks at the memory of the whole process, so alone.</summary>
[Collection(nameof(ChainMemoryTests))]
public sealed class ChainMemoryTests
{
    [Fact]
    public void Queues_that_are_made_over_and_over_do_not_pile_up_their_chains()
    {
        long before = Resident();
        long most = 0;
        // 64 KiB of lists for every 4 small objects, 800 MiB in all: what a guest can make of one queue by resetting it.
        for (int i = 0; i < 50_000; i++)
        {
            Fill(new DescriptorChain(0));
            if (i % 1000 == 0)
                most = Math.Max(most, Resident() - before);
        }
        Assert.InRange(most, long.MinValue, 300L << 20);
    }

    private static void Fill(DescriptorChain chain)
    {
        for (int i = 0; i < DescriptorChain.MaximumSegments; i++)
            Assert.True(chain.TryAppend(new GuestSegment(0, 1), writable: true));
    }

    private static long Resident()
    {
        string line = File.ReadLines("/proc/self/status").First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal));
        return long.Parse(line["VmRSS:".Length..^"kB".Length].Trim(), CultureInfo.InvariantCulture) << 10;
    }
}

/// <summary>Not beside other tests.</summary>
[CollectionDefinition(nameof(ChainMemoryTests), DisableParallelization = true)]
public sealed class ChainMemoryCollection
{
}
