using System.Security.Cryptography;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Virtio.Devices.Console;

namespace Vmm.Exec.Tests;

/// <summary>What stands between a port and a descriptor: all bytes, their end, and somebody who stops reading.</summary>
public sealed class StreamPortTests : IDisposable
{
    private readonly int[] _pipe = new int[2];

    public unsafe StreamPortTests()
    {
        fixed (int* pipe = _pipe)
            Assert.Equal(0, LibC.pipe2(pipe, LibC.O_CLOEXEC));
    }

    public void Dispose()
    {
        foreach (int fd in _pipe)
        {
            if (fd >= 0)
                _ = LibC.close(fd);
        }
    }

    [Fact]
    public async Task All_output_arrives_at_somebody_slow()
    {
        byte[] sent = new byte[3 << 20];
        new Random(1).NextBytes(sent);
        var port = new OutputPort("out", _pipe[1]);
        using var room = new AutoResetEvent(false);
        port.RoomAvailable = () => room.Set();
        Task<byte[]> reader = Task.Run(ReadAll);
        for (int done = 0; done < sent.Length;)
        {
            int taken = port.TryWrite(sent.AsSpan(done, Math.Min(60_000, sent.Length - done)));
            done += taken;
            if (taken == 0)
                Assert.True(room.WaitOne(30_000));
        }
        port.Finish(CancellationToken.None);
        Close(1);
        Assert.Equal(SHA256.HashData(sent), SHA256.HashData(await reader));
    }

    [Fact]
    public void Where_nobody_reads_any_more_everything_is_taken_and_lost()
    {
        Close(0);
        var port = new OutputPort("out", _pipe[1]);
        byte[] chunk = new byte[100_000];
        port.TryWrite("first"u8);
        Assert.True(SpinWait.SpinUntil(() => port.TryWrite(chunk) == chunk.Length && port.TryWrite(chunk) == chunk.Length && port.TryWrite(chunk) == chunk.Length && port.TryWrite(chunk) == chunk.Length, 30_000));
        port.Finish(CancellationToken.None);
        var nowhere = new OutputPort("out", -1);
        Assert.Equal(chunk.Length, nowhere.TryWrite(chunk));
        nowhere.Finish(CancellationToken.None);
    }

    [Fact]
    public void The_last_of_it_is_not_waited_for_where_it_is_over()
    {
        var port = new OutputPort("out", _pipe[1]);
        while (port.TryWrite(new byte[100_000]) > 0)
        {
        }
        using var over = new CancellationTokenSource(200);
        port.Finish(over.Token);
        Assert.True(over.IsCancellationRequested);
    }

    [Fact]
    public async Task Input_comes_to_its_end()
    {
        // To a device without a guest: what it has room for waits there.
        using var loop = new EventLoop("input-test");
        using var port = new InputPort("in", _pipe[0]);
        using var device = new ConsoleDevice(new ConsoleConfig(), new OutputPort("console", -1), [loop], [port]);
        byte[] bytes = new byte[ConsoleDevice.InputCapacity + 1000];
        new Random(2).NextBytes(bytes);
        Task writer = Task.Run(() =>
        {
            Write(bytes);
            Close(1);
        });
        Assert.Empty(((ConsoleState)device.Save()).Ports[0].Input);
        Open(port);
        Assert.True(SpinWait.SpinUntil(() => ((ConsoleState)device.Save()).Ports[0].Input.Length == ConsoleDevice.InputCapacity, 30_000));
        Assert.Equal(bytes[..ConsoleDevice.InputCapacity], ((ConsoleState)device.Save()).Ports[0].Input);
        await writer.WaitAsync(TimeSpan.FromSeconds(30));
    }

    [Fact]
    public void One_that_reads_nothing_ends_at_once()
    {
        var port = new InputPort("in", _pipe[0]);
        Open(port);
        long before = Environment.TickCount64;
        port.Dispose();
        Assert.True(Environment.TickCount64 - before < 900);
    }

    // As the device does it when the guest opens its end.
    private static void Open(InputPort port) => port.Opened();

    private unsafe void Write(byte[] bytes)
    {
        fixed (byte* start = bytes)
            Assert.Equal(bytes.Length, LibC.write(_pipe[1], start, (nuint)bytes.Length));
    }

    private unsafe byte[] ReadAll()
    {
        using var all = new MemoryStream();
        byte[] buffer = new byte[7777];
        while (true)
        {
            nint read;
            fixed (byte* bytes = buffer)
                read = LibC.read(_pipe[0], bytes, (nuint)buffer.Length);
            if (read <= 0)
                return all.ToArray();
            all.Write(buffer, 0, (int)read);
        }
    }

    private void Close(int end)
    {
        _ = LibC.close(_pipe[end]);
        _pipe[end] = -1;
    }
}
