using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd.Tests;

public sealed class FaultTests
{
    // GET_QUEUE_NUM of a device with one queue, answered well.
    private const string Good = "11000000 05000000 08000000 0100000000000000";

    public static TheoryData<Fault, string> Spoiled => new()
    {
        { Fault.WrongId, "12000000 05000000 08000000 0100000000000000" },
        { new Fault(FaultKind.WrongId, 1), "01000000 05000000 08000000 0100000000000000" },
        { Fault.NoReplyFlag, "11000000 01000000 08000000 0100000000000000" },
        { Fault.Version(0), "11000000 04000000 08000000 0100000000000000" },
        { Fault.Version(2), "11000000 06000000 08000000 0100000000000000" },
        { Fault.ExtraFlags(0x100), "11000000 05010000 08000000 0100000000000000" },
        { Fault.Size(4), "11000000 05000000 04000000 01000000" },
        { Fault.Size(0), "11000000 05000000 00000000" },
        { Fault.Size(16), "11000000 05000000 10000000 0100000000000000 0000000000000000" },
        { Fault.ClaimedSize(0xFFFFFFFF), "11000000 05000000 ffffffff 0100000000000000" },
        { Fault.Part(5), "11000000 05" },
        { Fault.Part(16), "11000000 05000000 08000000 01000000" },
        { Fault.Nack(7), "11000000 05000000 08000000 0700000000000000" },
        { Fault.Answer(0x8000000000000000), "11000000 05000000 08000000 0000000000000080" },
        { Fault.Twice, Good + Good },
        { Fault.Slow(50), Good },
        { Fault.Silence, "" },
        { Fault.CloseAfter, Good },
        { Fault.Close, "" },
    };

    [Theory]
    [MemberData(nameof(Spoiled))]
    public void A_fault_spoils_the_reply_that_it_is_planned_for_and_no_other(Fault fault, string expected)
    {
        ArgumentNullException.ThrowIfNull(fault);
        var backEnd = new BackEnd(new EchoDevice());
        PlannedFault planned = backEnd.Plan(FrontEndRequest.GET_QUEUE_NUM, fault, first: 2);
        (ScriptedFrontEnd frontEnd, BackEndSession session) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Ask(1, []);
        Assert.Equal(1ul, frontEnd.Ask(17, []));
        frontEnd.Send(17, 1, []);
        expected = expected.Replace(" ", "", StringComparison.Ordinal);
        var data = new byte[expected.Length / 2];
        Assert.Equal(0, frontEnd.Stream.ReceiveExactly(data, [], ScriptedFrontEnd.Deadline));
        Assert.Equal(expected, Convert.ToHexStringLower(data));
        if (fault.Kind is FaultKind.Close or FaultKind.CloseAfter)
        {
            Assert.True(session.WaitForEnd(ScriptedFrontEnd.Deadline));
            Assert.Equal(1, planned.Applied);
            Assert.Equal(LibC.ECONNRESET, frontEnd.Stream.ReceiveExactly(new byte[1], [], ScriptedFrontEnd.Deadline));
            return;
        }
        // Nothing else is on its way, and the next request is answered well.
        Assert.Equal(LibC.ETIMEDOUT, frontEnd.Stream.ReceiveExactly(new byte[1], [], 50));
        Assert.Equal(1ul, frontEnd.Ask(17, []));
        Assert.Equal(1, planned.Applied);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(40)]
    [InlineData(253)]
    public void Descriptors_come_where_none_belong(int count)
    {
        var backEnd = new BackEnd(new EchoDevice());
        backEnd.Plan(FrontEndRequest.GET_FEATURES, Fault.ExtraDescriptors(count));
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Send(1, 1, []);
        var descriptors = new List<FileDescriptor>();
        frontEnd.Receive(descriptors);
        Assert.Equal(count, descriptors.Count);
        descriptors.ForEach(descriptor => descriptor.Dispose());
    }

    [Fact]
    public void Descriptors_are_missing_where_one_belongs()
    {
        var backEnd = new BackEnd(new EchoDevice());
        backEnd.Plan(FrontEndRequest.GET_INFLIGHT_FD, Fault.MissingDescriptors);
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        foreach (int expected in new[] { 0, 1 })
        {
            frontEnd.Send(31, 1, [0ul, 0ul, (ushort)1, (ushort)16, 0u]);
            var descriptors = new List<FileDescriptor>();
            (_, _, byte[] payload) = frontEnd.Receive(descriptors);
            Assert.Equal(expected, descriptors.Count);
            // A queue of 16: 16 + 16 * 16 bytes, rounded up to 64.
            Assert.Equal("4001000000000000" + "0000000000000000" + "0100" + "1000" + "00000000", Convert.ToHexString(payload));
            descriptors.ForEach(descriptor => descriptor.Dispose());
        }
    }

    [Fact]
    public void A_refusal_leaves_undone_what_it_refuses()
    {
        var backEnd = new BackEnd(new EchoDevice());
        backEnd.Plan(FrontEndRequest.ADD_MEM_REG, Fault.Nack(12));
        (ScriptedFrontEnd frontEnd, BackEndSession session) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();
        Assert.Equal(12ul, frontEnd.AskAck(37, [0ul, ScriptedFrontEnd.GuestBase, ScriptedFrontEnd.RamSize, ScriptedFrontEnd.UserBase, 0ul], frontEnd.RamDescriptor));
        Assert.Empty(session.Memory.Regions);
        frontEnd.GiveMemory();
        Assert.Single(session.Memory.Regions);
    }

    [Fact]
    public void A_reply_comes_that_nobody_asked_for_and_an_action_does_as_it_likes()
    {
        var backEnd = new BackEnd(new EchoDevice());
        backEnd.Plan(FrontEndRequest.SET_OWNER, Fault.Unsolicited);
        backEnd.Plan(FrontEndRequest.GET_FEATURES, Fault.Act((session, message) => session.Connection.Send([1, 2, 3])));
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Send(3, 1, []);
        Assert.Equal(0ul, frontEnd.Answer(3));
        frontEnd.Send(1, 1, []);
        var data = new byte[3];
        Assert.Equal(0, frontEnd.Stream.ReceiveExactly(data, [], ScriptedFrontEnd.Deadline));
        Assert.Equal([1, 2, 3], data);
    }
}
