using Vmm.Testing.Running;

namespace Vmm.Testing.Tests.Running;

public sealed class HostRoomTests
{
    private const ulong MiB = 1 << 20;

    [Fact]
    public async Task So_many_run_at_once()
    {
        var room = new HostRoom(2, 10_000 * MiB, 100);
        IDisposable one = await room.EnterAsync(MiB, 1);
        await room.EnterAsync(MiB, 1);
        Task<IDisposable> third = room.EnterAsync(MiB, 1);
        Assert.False(third.IsCompleted);
        one.Dispose();
        one.Dispose();
        await third;
        Assert.False(room.EnterAsync(MiB, 1).IsCompleted);
    }

    [Theory]
    [InlineData(600, 1)]
    [InlineData(1, 3)]
    public async Task Memory_and_processors_bound_them_too(ulong memory, int vcpus)
    {
        var room = new HostRoom(10, 1000 * MiB, 4);
        IDisposable one = await room.EnterAsync(memory * MiB, vcpus);
        Task<IDisposable> two = room.EnterAsync(memory * MiB, vcpus);
        // In the order of asking, though this one would fit.
        Task<IDisposable> small = room.EnterAsync(MiB, 1);
        Assert.False(two.IsCompleted || small.IsCompleted);
        one.Dispose();
        await two;
        await small;
    }

    [Fact]
    public async Task One_that_is_too_large_runs_alone()
    {
        var room = new HostRoom(10, 100 * MiB, 1);
        IDisposable large = await room.EnterAsync(1000 * MiB, 8);
        Task<IDisposable> small = room.EnterAsync(MiB, 1);
        Assert.False(small.IsCompleted);
        large.Dispose();
        await small;
    }
}
