using System.Globalization;
using System.Runtime.InteropServices;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>Messages of a back-end that are nearly right.</summary>
internal static class RandomMessages
{
    private const ulong Page = 4096;

    /// <summary>Makes an answer wrong in one way.</summary>
    public static (byte[] Message, int[] Descriptors) Spoil(Random random, byte[] message, AnyDescriptors descriptors)
    {
        switch (random.Next(7))
        {
            case 0:
                message[random.Next(message.Length)] ^= (byte)(1 << random.Next(8));
                return (message, []);
            case 1:
                return (message[..random.Next(message.Length)], []);
            case 2:
                MemoryMarshal.Write(message.AsSpan(8), (uint)random.NextInt64());
                return (message, []);
            case 3:
                return (message, descriptors.Some(random, random.Next(1, 4)));
            case 4:
                return ([.. message, .. message], []);
            case 5:
                random.NextBytes(message.AsSpan(VhostUserHeader.Length));
                return (message, random.Next(2) == 0 ? [] : descriptors.Some(random, 1));
            default:
                random.NextBytes(message);
                return (message, []);
        }
    }

    /// <summary>Sends a request of a back-end, mostly about shared memory region 0 of 256 KiB or more; not 0 where the connection has ended.</summary>
    /// <param name="random">What it is made of.</param>
    /// <param name="stream">The back-end's end.</param>
    /// <param name="descriptors">What may go with it.</param>
    /// <param name="isEnding">Whether it may be so wrong that it is the last one: a header that cannot be, or a length that is not the payload's.</param>
    public static int SendRequest(Random random, UnixStream stream, AnyDescriptors descriptors, bool isEnding = true)
    {
        uint request = random.Next(10) switch { < 5 => 9, < 8 => 10, 8 => 2, _ => (uint)random.Next(1100) };
        uint flags = isEnding && random.Next(200) == 0 ? (uint)random.Next(64) : random.Next(2) == 0 ? 1u : 9u;
        byte[] payload = request is 9 or 10 ? Mapping(random) : new byte[random.Next(3) == 0 ? random.Next(64) : 0];
        if (random.Next(50) == 0)
            payload = [.. payload, .. new byte[random.Next(100)]];
        uint size = isEnding && random.Next(2000) == 0 ? (uint)random.NextInt64() : (uint)payload.Length;
        byte[] message = new byte[VhostUserHeader.Length + payload.Length];
        MemoryMarshal.Write(message, new VhostUserHeader(request, flags, size));
        payload.CopyTo(message, VhostUserHeader.Length);
        if (isEnding && random.Next(500) == 0)
            message[random.Next(message.Length)] ^= (byte)(1 << random.Next(8));
        int count = random.Next(20) switch { 0 => random.Next(5), 1 => 0, _ => request == 9 ? 1 : 0 };
        return stream.Send(message, descriptors.Some(random, count), 2000);
    }

    private static byte[] Mapping(Random random)
    {
        ulong Offset() => random.Next(30) switch { 0 => (ulong)random.NextInt64(), 1 => ulong.MaxValue - (ulong)random.Next(8192), 2 => (ulong)random.Next(1 << 21), _ => (ulong)random.Next(64) * Page };
        byte[] bytes = new byte[40];
        MemoryMarshal.Write(bytes, new SharedMemoryMapping(random.Next(20) == 0 ? (ulong)random.NextInt64() : 0, random.Next(3) == 0 ? Offset() : 0, Offset(), random.Next(10) == 0 ? Offset() : Page * (ulong)random.Next(1, 4), random.Next(20) == 0 ? (ulong)random.Next() : (ulong)random.Next(2)));
        return bytes;
    }

    /// <summary>A message to a graphics card's display, and how many descriptors go with it.</summary>
    public static (byte[] Message, int Descriptors) ToDisplay(Random random)
    {
        uint request = random.Next(400) == 0 ? (uint)random.NextInt64(uint.MaxValue) : (uint)random.Next(1, 13);
        uint width = (uint)random.Next(0, 40), height = (uint)random.Next(0, 40);
        uint[] numbers = request switch
        {
            GpuDisplay.SetProtocolFeatures => [(uint)random.Next(4), 0],
            GpuDisplay.CursorPos or GpuDisplay.CursorPosHide => [Small(random), Small(random), Small(random)],
            GpuDisplay.CursorUpdate => new uint[5 + (64 * 64)],
            GpuDisplay.Scanout => [Small(random), width, height],
            GpuDisplay.Update => [Small(random), Small(random), Small(random), width, height, .. new uint[width * height]],
            GpuDisplay.DmabufUpdate => [Small(random), 0, 0, width, height],
            GpuDisplay.GetEdid => [Small(random)],
            GpuDisplay.DmabufScanout or GpuDisplay.DmabufScanout2 => [Small(random), 0, 0, width, height, width, height, width * 4, 0, 0, .. new uint[request == GpuDisplay.DmabufScanout ? 0 : 2]],
            _ => [],
        };
        byte[] message = GpuDisplay.Encode(request, numbers);
        if (random.Next(100) == 0)
        {
            // One bit, or one field to an edge.
            if (random.Next(2) == 0 || message.Length < 16)
                message[random.Next(message.Length)] ^= (byte)(1 << random.Next(8));
            else
                BitConverter.TryWriteBytes(message.AsSpan(4 * random.Next(2, Math.Min(message.Length / 4, 8))), (uint)(random.Next(4) switch { 0 => uint.MaxValue, 1 => 0x8000_0000, 2 => 16384, _ => 65536 }));
        }
        if (random.Next(1000) == 0)
            message = message[..random.Next(1, message.Length + 1)];
        bool hasBuffer = request is GpuDisplay.DmabufScanout or GpuDisplay.DmabufScanout2;
        return (message, random.Next(100) == 0 ? random.Next(1, 200) : hasBuffer ? random.Next(2) : 0);
    }

    /// <summary>Takes what has come; how many bytes.</summary>
    public static int Drain(UnixStream stream)
    {
        Span<byte> room = stackalloc byte[4096];
        var received = new List<FileDescriptor>();
        int all = 0;
        int count;
        while ((count = stream.Receive(room, received)) > 0)
            all += count;
        Assert.Empty(received);
        return all;
    }

    /// <summary>Open descriptors and threads of this process.</summary>
    public static (int Files, int Threads) Leaks() => (Directory.GetFiles("/proc/self/fd").Length, Directory.GetDirectories("/proc/self/task").Length);

    /// <summary>A number in the environment.</summary>
    public static long Number(string variable, long otherwise) =>
        long.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : otherwise;

    private static uint Small(Random random) => random.Next(20) == 0 ? (uint)random.NextInt64(uint.MaxValue + 1L) : (uint)random.Next(3) / 2;
}

/// <summary>Descriptors of all kinds, most of which are no memory.</summary>
internal sealed unsafe class AnyDescriptors : IDisposable
{
    private const long Length = 1 << 20;

    private readonly List<FileDescriptor> _all = [];

    public AnyDescriptors()
    {
        int memory = LibC.memfd_create("fuzz", LibC.MFD_CLOEXEC);
        Assert.Equal(0, LibC.ftruncate(memory, Length));
        for (int i = 0; i < 6; i++)
            _all.Add(new FileDescriptor(LibC.fcntl(memory, LibC.F_DUPFD_CLOEXEC, 0)));
        _all.Add(new FileDescriptor(memory));
        _all.Add(new FileDescriptor(LibC.memfd_create("empty", LibC.MFD_CLOEXEC)));
        _all.Add(new FileDescriptor(LibC.open("/dev/null", LibC.O_RDWR | LibC.O_CLOEXEC, 0)));
        _all.Add(new FileDescriptor(LibC.open("/", LibC.O_RDONLY | LibC.O_CLOEXEC, 0)));
        _all.Add(new FileDescriptor(LibC.eventfd(0, LibC.EFD_CLOEXEC)));
        int* pipe = stackalloc int[2];
        Assert.Equal(0, LibC.pipe2(pipe, LibC.O_CLOEXEC));
        _all.Add(new FileDescriptor(pipe[0]));
        _all.Add(new FileDescriptor(pipe[1]));
    }

    public int[] Some(Random random, int count)
    {
        int[] some = new int[count];
        for (int i = 0; i < count; i++)
            some[i] = _all[random.Next(_all.Count)].Number;
        return some;
    }

    public void Dispose() => _all.ForEach(descriptor => descriptor.Dispose());
}
