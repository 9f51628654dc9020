using Vmm.Core;
using Vmm.Virtio.SharedMemory;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>How many mappings may live.</summary>
public sealed class SharedMemoryQuotaTests
{
    [Theory]
    [InlineData(65530, 30717)]
    [InlineData(262144, 129024)]
    [InlineData(4096, 1024)]
    [InlineData(2, 1)]
    [InlineData(0, 1)]
    public void The_hosts_limit_leaves_room_for_holes_and_for_all_else(int maximum, int limit)
    {
        Assert.Equal(limit, SharedMemoryQuota.LimitOfHost(maximum));
        Assert.True(limit == 1 || (2 * limit) + 1 < maximum);
    }

    [Fact]
    public void Linuxs_default_allows_twenty_thousand() => Assert.True(SharedMemoryQuota.LimitOfHost(65530) >= 20_000);

    [Fact]
    public void The_machines_limit_is_what_this_host_says()
    {
        int maximum = int.Parse(File.ReadAllText("/proc/sys/vm/max_map_count"), System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal(SharedMemoryQuota.LimitOfHost(maximum), SharedMemoryQuota.ForMachine().Limit);
    }

    [Fact]
    public void A_device_may_have_up_to_the_machines_limit()
    {
        SharedMemoryQuota machine = SharedMemoryQuota.ForMachine();
        Assert.Equal(Math.Min(4096, machine.Limit), machine.ForDevice(Math.Min(SharedMemoryQuota.DefaultPerDevice, machine.Limit)).Limit);
        Assert.Equal(machine.Limit, machine.ForDevice(machine.Limit).Limit);
        foreach (int limit in new[] { 0, -1, int.MinValue, machine.Limit + 1, int.MaxValue })
            Assert.Equal(VmmErrorKind.Configuration, Assert.Throws<VmmException>(() => machine.ForDevice(limit)).Kind);
    }

    [Fact]
    public void Devices_together_have_no_more_than_the_machine()
    {
        SharedMemoryQuota machine = SharedMemoryQuota.ForMachine();
        SharedMemoryQuota first = machine.ForDevice(machine.Limit), second = machine.ForDevice(2);
        for (int i = 0; i < machine.Limit - 1; i++)
            Assert.True(first.TryTake());
        Assert.True(second.TryTake());
        Assert.False(second.TryTake());
        Assert.False(first.TryTake());
        Assert.Equal((machine.Limit - 1, 1, machine.Limit), (first.Taken, second.Taken, machine.Taken));
        first.Release(10);
        Assert.True(second.TryTake());
        Assert.False(second.TryTake());
        Assert.Equal((machine.Limit - 11, 2, machine.Limit - 9), (first.Taken, second.Taken, machine.Taken));
    }

    [Fact]
    public async Task Threads_that_take_and_release_lose_none()
    {
        SharedMemoryQuota machine = SharedMemoryQuota.ForMachine();
        SharedMemoryQuota device = machine.ForDevice(3);
        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() =>
        {
            for (int i = 0; i < 20_000; i++)
            {
                if (device.TryTake())
                    device.Release();
            }
        })));
        Assert.Equal((0, 0), (device.Taken, machine.Taken));
    }
}
