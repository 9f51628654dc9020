using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Tests;

public sealed class BackEndTests
{
    [Fact]
    public void Negotiates_maps_memory_and_serves_a_ring()
    {
        var backEnd = new BackEnd(new EchoDevice());
        (ScriptedFrontEnd frontEnd, BackEndSession session) = ScriptedFrontEnd.Connect(backEnd);
        using (frontEnd)
        {
            frontEnd.Negotiate();
            frontEnd.GiveMemory();
            ScriptedFrontEnd.TestQueue queue = frontEnd.StartQueue(0);
            Assert.Equal("hello"u8.ToArray(), queue.Request("hello"u8, 100));
            Assert.Equal("again"u8.ToArray(), queue.Request("again, but cut"u8, 5));
            Assert.Equal(["GET_FEATURES", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES", "SET_OWNER", "SET_BACKEND_REQ_FD", "SET_FEATURES", "ADD_MEM_REG",
                "SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ENABLE"], backEnd.Transcript.Names);
            Assert.Equal("/memfd:ram (deleted)", Assert.Single(backEnd.Transcript.Requests(FrontEndRequest.ADD_MEM_REG)[0].Descriptors));

            // GET_VRING_BASE: the index that would come next.
            frontEnd.Send(11, 1, [0u, 0u]);
            (uint id, uint flags, byte[] payload) = frontEnd.Receive();
            Assert.Equal((11u, 5u), (id, flags));
            Assert.Equal("0000000002000000", Convert.ToHexString(payload));
            Assert.False(session.Vrings[0].IsStarted);
            Assert.Empty(backEnd.Violations);
        }
        Assert.True(session.WaitForEnd(ScriptedFrontEnd.Deadline));
    }

    [Fact]
    public void A_ring_that_is_disabled_serves_nothing_until_it_is_enabled()
    {
        var backEnd = new BackEnd(new EchoDevice());
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();
        frontEnd.GiveMemory();
        ScriptedFrontEnd.TestQueue queue = frontEnd.StartQueue(0);
        Assert.Equal(0ul, frontEnd.AskAck(18, [0u, 0u]));
        queue.Add((0x20_0000, 4, false), (0x30_0000, 4, true));
        queue.Notify();
        Assert.False(queue.WaitUsed(1, 100));
        Assert.Equal(0ul, frontEnd.AskAck(18, [0u, 1u]));
        Assert.True(queue.WaitUsed(1));
    }

    [Fact]
    public async Task Maps_and_unmaps_shared_memory_with_and_without_a_reply()
    {
        var backEnd = new BackEnd(new ShmemDevice([1 << 20]));
        (ScriptedFrontEnd frontEnd, BackEndSession session) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();
        var mapping = new ShmemMapping(3, 0x1000, 0x2000, 0x4000, ShmemMapping.ReadWrite);

        using var file = new FileDescriptor(memfd_create("window", MFD_CLOEXEC));
        var descriptors = new List<FileDescriptor>();
        Task<ChannelAnswer> answer = Task.Run(() => session.Channel!.Map(mapping, file.Number));
        (uint id, uint flags, byte[] payload) = ScriptedFrontEnd.ReceiveFrom(frontEnd.Channel!, descriptors);
        Assert.Equal((9u, 9u), (id, flags));
        Assert.Equal("0300000000000000" + "0010000000000000" + "0020000000000000" + "0040000000000000" + "0100000000000000", Convert.ToHexString(payload));
        Assert.Equal("/memfd:window (deleted)", new FileInfo($"/proc/self/fd/{Assert.Single(descriptors).Number}").LinkTarget);
        descriptors[0].Dispose();
        SendOn(frontEnd.Channel!, "09000000 05000000 08000000 1600000000000000");
        Assert.Equal(new ChannelAnswer(ChannelResult.Answered, 22), await answer);

        Assert.Equal(ChannelResult.Sent, session.Channel!.Unmap(mapping, needReply: false).Result);
        descriptors.Clear();
        (id, flags, payload) = ScriptedFrontEnd.ReceiveFrom(frontEnd.Channel!, descriptors);
        Assert.Equal((10u, 1u), (id, flags));
        Assert.Equal(40, payload.Length);
        Assert.Empty(descriptors);
        Assert.Empty(backEnd.Violations);

        // An answer that is none is told.
        answer = Task.Run(() => session.Channel!.ConfigChange(needReply: true));
        ScriptedFrontEnd.ReceiveFrom(frontEnd.Channel!, descriptors);
        SendOn(frontEnd.Channel!, "02000000 01000000 08000000 0000000000000000");
        Assert.Equal(ChannelResult.Malformed, (await answer).Result);
        Assert.Single(backEnd.Violations);
    }

    [Fact]
    public void What_a_front_end_may_not_do_is_written_down()
    {
        var backEnd = new BackEnd(new EchoDevice());
        (ScriptedFrontEnd frontEnd, BackEndSession session) = ScriptedFrontEnd.Connect(backEnd);
        using (frontEnd)
        {
            frontEnd.Send(8, 1, [0u, 16u]);                 // before SET_FEATURES
            frontEnd.Send(3, 1, []);
            frontEnd.Send(3, 1, []);                        // twice
            frontEnd.Send(16, 1, [0ul]);                    // without having asked
            frontEnd.Send(44, 9, []);                       // not negotiated, NEED_REPLY without REPLY_ACK; answered all the same
            frontEnd.Receive();
            frontEnd.Send(99, 1, []);
            frontEnd.Send(2, 1, [(ulong)1]);                // not offered
            frontEnd.Send(8, 1, [0u, 15u]);
            frontEnd.Send(8, 1, [0u]);                      // short
            frontEnd.Send(12, 1, [(ulong)0x100], frontEnd.RamDescriptor);
            frontEnd.Ask(1, []);
        }
        Assert.True(session.WaitForEnd(ScriptedFrontEnd.Deadline));
        foreach (string part in new[] { "SET_VRING_NUM: SET_FEATURES", "SET_OWNER: it came a second", "SET_PROTOCOL_FEATURES: VHOST_USER_F", "SHMEM was not negotiated",
            "NEED_REPLY without", "99: there is no", "1 was not offered", "15 descriptors", "4 bytes", "SET_VRING_KICK: 1 descriptors" })
            Assert.Contains(backEnd.Violations, violation => violation.Contains(part, StringComparison.Ordinal));
    }

    [Fact]
    public void Listens_and_accepts_again_and_again()
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-backend-{Guid.NewGuid():n}");
        var backEnd = new BackEnd(new RngDevice());
        using var server = BackEndServer.Listen(backEnd, path);
        for (int i = 0; i < 3; i++)
        {
            using UnixStream stream = UnixStream.TryConnect(path, out int error)!;
            Assert.Equal(0, error);
            var frontEnd = new ScriptedFrontEnd(stream);
            Assert.Equal(backEnd.Features, frontEnd.Ask(1, []));
        }
        Assert.True(backEnd.Transcript.WaitFor(FrontEndRequest.GET_FEATURES, 3));
    }

    [Fact]
    public void Connects_to_a_front_end_that_listens_and_again_when_it_is_gone()
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-frontend-{Guid.NewGuid():n}");
        var backEnd = new BackEnd(new RngDevice());
        using var server = BackEndServer.Connect(backEnd, path);
        using var listener = UnixListener.Listen(path, "the front-end's socket");
        for (int i = 0; i < 2; i++)
        {
            UnixStream? stream = null;
            Assert.True(SpinWait.SpinUntil(() => (stream = listener.TryAccept()) != null, ScriptedFrontEnd.Deadline));
            using var frontEnd = new ScriptedFrontEnd(stream!);
            Assert.Equal(backEnd.Features, frontEnd.Ask(1, []));
        }
    }

    private static void SendOn(UnixStream stream, string hex) =>
        Assert.Equal(0, stream.Send(Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal)), [], ScriptedFrontEnd.Deadline));
}
