using System.Globalization;

namespace Vmm.Tests;

public sealed class ThreadAllocationsTests
{
    [Fact]
    public void The_smallest_allocation_is_seen()
    {
        long start = ThreadAllocations.Start();
        GC.KeepAlive(new object());
        long allocated = ThreadAllocations.Since(start);
        Assert.True(allocated >= 24, allocated.ToString(CultureInfo.InvariantCulture));
    }

    [Fact]
    public void Collections_by_other_threads_count_for_nothing()
    {
        bool stop = false;
        var other = new Thread(() =>
        {
            var kept = new List<byte[]>();
            while (!Volatile.Read(ref stop))
            {
                for (int i = 0; i < 3000; i++)
                    kept.Add(new byte[1000]);
                if (kept.Count > 20_000)
                    kept.Clear();
                GC.Collect(2, GCCollectionMode.Forced, blocking: false);
            }
        });
        other.Start();
        long most = 0;
        for (int round = 0; round < 500; round++)
        {
            // Leaves this thread with the rest of a piece, as whatever ran before does.
            GC.KeepAlive(new byte[100]);
            long start = ThreadAllocations.Start();
            Thread.SpinWait(20_000);
            most = Math.Max(most, ThreadAllocations.Since(start));
        }

        Volatile.Write(ref stop, true);
        other.Join();
        Assert.Equal(0, most);
    }
}
