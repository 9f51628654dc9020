using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Tests;

public sealed class BlkTests : IDisposable
{
    private const uint In = 0;
    private const uint Out = 1;

    private readonly string _path = Path.Combine(Path.GetTempPath(), $"vmm-blk-{Guid.NewGuid():n}");

    public BlkTests() => File.WriteAllBytes(_path, new byte[64 * 512]);

    public void Dispose() => File.Delete(_path);

    [Fact]
    public void Reads_writes_flushes_and_says_its_name()
    {
        using var disk = new BlkDevice(_path, id: "disk one");
        var backEnd = new BackEnd(disk);
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();
        frontEnd.GiveMemory();
        ScriptedFrontEnd.TestQueue queue = frontEnd.StartQueue(0);
        byte[] data = new byte[1024];
        Random.Shared.NextBytes(data);

        Assert.Equal([0], queue.Request([.. Header(Out, 7), .. data], 1));
        Assert.Equal(data, File.ReadAllBytes(_path).AsSpan(7 * 512, 1024));
        Assert.Equal([.. data, 0], queue.Request(Header(In, 7), 1025));
        Assert.Equal([0], queue.Request(Header(4, 0), 1));
        Assert.Equal("disk one", System.Text.Encoding.ASCII.GetString(queue.Request(Header(8, 0), 21)).TrimEnd('\0'));
        // Beyond the end, and an unknown request.
        Assert.Equal(1, queue.Request(Header(In, 63), 1025)[^1]);
        Assert.Equal(1, queue.Request(Header(In, ulong.MaxValue), 513)[^1]);
        Assert.Equal(2, queue.Request(Header(99, 0), 1)[^1]);
        Assert.Empty(backEnd.Violations);
    }

    [Fact]
    public void A_new_size_is_in_the_configuration_space_and_told()
    {
        using var disk = new BlkDevice(_path);
        var backEnd = new BackEnd(disk);
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();
        Assert.Equal(64ul, Capacity(frontEnd));
        Assert.Equal(ChannelResult.Sent, disk.Resize(backEnd, 100).Result);
        (uint id, uint flags, byte[] payload) = ScriptedFrontEnd.ReceiveFrom(frontEnd.Channel!, []);
        Assert.Equal((2u, 1u, 0), (id, flags, payload.Length));
        Assert.Equal(100ul, Capacity(frontEnd));
        Assert.Equal(100 * 512, new FileInfo(_path).Length);
        // What is not there to be read is answered with nothing, which is an error.
        frontEnd.Send(24, 1, [50u, 60u, 0u, new byte[60]]);
        Assert.Empty(frontEnd.Receive().Payload);
    }

    [Fact]
    public void What_a_back_end_that_was_killed_had_taken_its_successor_serves()
    {
        var inflight = new List<FileDescriptor>();
        byte[] description;
        ushort used;
        using var first = new BlkDevice(_path) { DelayMilliseconds = 20 };
        var firstBackEnd = new BackEnd(first);
        (ScriptedFrontEnd frontEnd, BackEndSession session) = ScriptedFrontEnd.Connect(firstBackEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();
        frontEnd.GiveMemory();
        frontEnd.Send(31, 1, [0ul, 0ul, (ushort)1, (ushort)ScriptedFrontEnd.QueueSize, 0u]);
        (_, _, description) = frontEnd.Receive(inflight);
        frontEnd.Send(32, 1, [description], inflight[0].Number);
        ScriptedFrontEnd.TestQueue queue = frontEnd.StartQueue(0);
        const int requests = 7;
        PutWrites(frontEnd, queue, requests);
        queue.Notify();
        Assert.True(queue.WaitUsed(2));
        session.Disconnect();
        Assert.True(session.WaitForEnd(ScriptedFrontEnd.Deadline));
        used = queue.UsedIndex;
        Assert.InRange(used, 2, requests - 1);

        using var second = new BlkDevice(_path);
        var secondBackEnd = new BackEnd(second);
        (ScriptedFrontEnd other, BackEndSession next) = ScriptedFrontEnd.Connect(secondBackEnd);
        using ScriptedFrontEnd otherOwner = other;
        other.Negotiate();
        Assert.Equal(0ul, other.AskAck(37, [0ul, ScriptedFrontEnd.GuestBase, ScriptedFrontEnd.RamSize, ScriptedFrontEnd.UserBase, 0ul], frontEnd.RamDescriptor));
        Assert.Equal(0ul, other.AskAck(32, [description], inflight[0].Number));
        other.StartQueue(0, used);
        Assert.True(queue.WaitUsed(requests), $"{queue.UsedIndex} of {requests} were given back\n{secondBackEnd.Transcript}");
        Assert.Equal(requests - used, secondBackEnd.Resubmitted);
        Assert.Equal(requests, next.Vrings[0].Base);
        byte[] file = File.ReadAllBytes(_path);
        for (int i = 0; i < requests; i++)
            Assert.Equal(i + 1, file[i * 512]);
        // Each head exactly once.
        Assert.Equal(requests, Enumerable.Range(0, requests).Select(i => queue.UsedEntry(i).Head).Distinct().Count());
        inflight[0].Dispose();
    }

    [Fact]
    public unsafe void Writes_to_guest_memory_are_logged_while_the_front_end_wants_it()
    {
        using var disk = new BlkDevice(_path);
        var backEnd = new BackEnd(disk);
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();
        frontEnd.GiveMemory();
        using var log = new FileDescriptor(memfd_create("log", MFD_CLOEXEC));
        Assert.Equal(0, ftruncate(log.Number, 4096));
        frontEnd.Send(6, 1, [4096ul, 0ul], log.Number);
        // The log's length, as libvhost-user and passt answer; no number that says yes or no.
        Assert.Equal(4096ul, frontEnd.Answer(6));
        ScriptedFrontEnd.TestQueue queue = frontEnd.StartQueue(0);
        queue.Request(Header(In, 0), 513);
        Assert.Empty(Dirty(log));
        // SET_FEATURES with LOG_ALL, and SET_VRING_ADDR with the guest's address of the used ring.
        frontEnd.Send(2, 1, [backEnd.Features & ~(1ul << 29)]);
        ulong at = ScriptedFrontEnd.UserBase;
        Assert.Equal(0ul, frontEnd.AskAck(9, [0u, 1u, at, at + 0x800, at + 0x400, ScriptedFrontEnd.GuestBase + 0x800]));
        queue.Request(Header(In, 0), 8193);
        ulong first = ScriptedFrontEnd.GuestBase >> 12;
        Assert.Equal([first, first + 0x300, first + 0x301, first + 0x302], Dirty(log));
    }

    private static unsafe List<ulong> Dirty(FileDescriptor log)
    {
        var bytes = new byte[4096];
        fixed (byte* start = bytes)
            Assert.Equal(4096, pread(log.Number, start, 4096, 0));
        var pages = new List<ulong>();
        for (int i = 0; i < bytes.Length * 8; i++)
        {
            if ((bytes[i / 8] & (1 << (i % 8))) != 0)
                pages.Add((ulong)i);
        }
        return pages;
    }

    private static unsafe void PutWrites(ScriptedFrontEnd frontEnd, ScriptedFrontEnd.TestQueue queue, int count)
    {
        for (int i = 0; i < count; i++)
        {
            ulong at = 0x10_0000 + ((ulong)i * 0x1000);
            var bytes = new Span<byte>(frontEnd.Ram + at, 16 + 512);
            Header(Out, (ulong)i).CopyTo(bytes);
            bytes[16..].Fill((byte)(i + 1));
            queue.Add((at, 16 + 512, false), (at + 0x800, 1, true));
        }
    }

    private static byte[] Header(uint type, ulong sector) => [.. BitConverter.GetBytes(type), 0, 0, 0, 0, .. BitConverter.GetBytes(sector)];

    private static ulong Capacity(ScriptedFrontEnd frontEnd)
    {
        frontEnd.Send(24, 1, [0u, 8u, 0u, new byte[8]]);
        (_, _, byte[] payload) = frontEnd.Receive();
        Assert.Equal("00000000" + "08000000" + "00000000", Convert.ToHexString(payload.AsSpan(0, 12)));
        return BitConverter.ToUInt64(payload, 12);
    }
}
