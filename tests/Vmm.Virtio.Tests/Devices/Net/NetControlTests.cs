using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Net;

public sealed class NetControlTests
{
    private static readonly MacAddress Card = Frames.Mac("52:54:00:12:34:56");
    private static readonly MacAddress Other = Frames.Mac("52:54:00:00:00:01");
    private static readonly MacAddress Group = Frames.Mac("01:00:5e:00:00:01");

    [Fact]
    public void Frames_are_filtered_as_the_driver_says()
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", Mac = Card });
        guest.Provide(64, 200);
        AssertReceives(guest, Card, Other, Group, MacAddress.Broadcast);
        Assert.Equal(NetGuest.Ok, guest.Command(0, 0, 0));
        AssertReceives(guest, Card, MacAddress.Broadcast);
        Assert.Equal(NetGuest.Ok, guest.Command(0, 1, 1));
        AssertReceives(guest, Card, Group, MacAddress.Broadcast);
        Assert.Equal(NetGuest.Ok, guest.Command(0, 1, 0));
        Assert.Equal(NetGuest.Ok, guest.Command(1, 0, Table([Other], [Group])));
        AssertReceives(guest, Card, Other, Group, MacAddress.Broadcast);
        Assert.Equal(NetGuest.Ok, guest.Command(1, 0, Table([], [])));
        Assert.Equal(NetGuest.Ok, guest.Command(0, 5, 1));
        AssertReceives(guest, Card);
        Assert.Equal(NetGuest.Ok, guest.Command(0, 4, 1));
        AssertReceives(guest);
        Assert.Equal(NetGuest.Ok, guest.Command(0, 0, 1));
        AssertReceives(guest, Card, Other, Group, MacAddress.Broadcast);
    }

    [Fact]
    public void A_longer_table_than_is_kept_lets_all_of_its_kind_in()
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", Mac = Card });
        guest.Provide(64, 200);
        guest.Command(0, 0, 0);
        var many = new MacAddress[65];
        Assert.Equal(NetGuest.Ok, guest.Command(1, 0, Table(many, [])));
        AssertReceives(guest, Card, Other, MacAddress.Broadcast);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(15)]
    public void A_command_may_lie_in_any_pieces(int piece)
    {
        using var guest = new NetGuest();
        byte[] command = [1, 0, .. Table([Card, Other], [Group])];
        var buffers = new List<GuestBuffer>();
        for (int i = 0; i < command.Length; i += piece)
        {
            byte[] part = command[i..Math.Min(command.Length, i + piece)];
            ulong address = guest.Driver.Arena.Allocate((ulong)part.Length);
            guest.Driver.Memory.Write(address, part);
            buffers.Add(new GuestBuffer(address, (uint)part.Length));
        }
        buffers.Add(new GuestBuffer(guest.Driver.Arena.Allocate(1), 1, true));
        Assert.True(guest.Control.Add(buffers.ToArray()) >= 0);
        guest.Control.Kick();
        Assert.Equal(NetGuest.Ok, guest.Control.Read(guest.Control.WaitUsed())[0]);
    }

    [Fact]
    public void A_command_without_room_for_the_answer_does_nothing()
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", Mac = Card });
        Assert.True(guest.Control.Add([1, 1, 2, 0, 0, 0, 0, 1], 0) >= 0);
        guest.Control.Kick();
        Assert.Equal(0U, guest.Control.WaitUsed().Written);
        Assert.Equal(Card, guest.Device.Mac);
        Assert.False(guest.Driver.Host.IsResetNeeded);
    }

    [Fact]
    public void What_the_back_end_refuses_is_an_error_and_changes_nothing()
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", NumQueues = 6 });
        guest.Ports[2].RefusesEnabling = true;
        Assert.Equal(NetGuest.Error, guest.Command(4, 0, 3, 0));
        Assert.Equal([true, false, false], guest.Ports.Select(p => p.Enabled));
        Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 2, 0));
        ((MemoryBackend)guest.Backend).RefusesOffloads = true;
        Assert.Equal(NetGuest.Error, guest.Command(5, 0, new byte[8]));
    }

    /// <summary>Any bytes at all, biased towards commands: the answer and what changes are those of a simple model.</summary>
    [Fact]
    public void Any_command_is_answered_as_the_specification_says()
    {
        Gen<byte[]> any = from length in Gen.Choose(1, 40)
                          from bytes in Gen.Choose(0, 255).Select(i => (byte)i).ArrayOf(length)
                          select bytes;
        Gen<byte[]> likely = from @class in Gen.Choose(0, 6)
                             from command in Gen.Choose(0, 6)
                             from data in Gen.OneOf(
                                 Gen.Choose(0, 20).SelectMany(n => Gen.Choose(0, 3).Select(i => (byte)i).ArrayOf(n)),
                                 from u in Gen.Choose(0, 70)
                                 from m in Gen.Choose(0, 3)
                                 from cut in Gen.Frequency((3, Gen.Constant(0)), (1, Gen.Choose(1, 8)))
                                 select Table(new MacAddress[u], new MacAddress[m])[..^cut])
                             select (byte[])[(byte)@class, (byte)command, .. data];
        using var guest = new NetGuest(new NetConfig { Id = "net0", Mac = Card, NumQueues = 6 });
        MacAddress mac = Card;
        ulong offloads = guest.Device.OfferedFeatures & NetFeatures.GuestOffloads;
        ulong allowed = offloads;
        int pairs = 1;
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(1500), Prop.ForAll(Gen.Frequency((1, any), (4, likely)).ToArbitrary(), command =>
        {
            byte answer = guest.Control.Transact(command, 1)[0];
            bool ok = Model(command, allowed, ref mac, ref offloads, ref pairs);
            return answer == (ok ? NetGuest.Ok : NetGuest.Error)
                && guest.Device.Mac == mac
                && ((MemoryBackend)guest.Backend).GuestOffloads == offloads
                && guest.Ports.Count(p => p.Enabled) == pairs;
        }));
        Assert.True(guest.Counter("control_commands") > 100);
        Assert.True(guest.Counter("control_errors") > 100);
        Assert.False(guest.Driver.Host.IsResetNeeded);
    }

    private static bool Model(byte[] bytes, ulong allowed, ref MacAddress mac, ref ulong offloads, ref int pairs)
    {
        if (bytes.Length < 2)
            return false;
        ReadOnlySpan<byte> data = bytes.AsSpan(2);
        switch (bytes[0], bytes[1])
        {
            case (0, < 6):
                return data.Length >= 1;
            case (1, 0):
                for (int i = 0; i < 2; i++)
                {
                    if (data.Length < 4)
                        return false;
                    ulong length = 6UL * BinaryPrimitives.ReadUInt32LittleEndian(data);
                    if ((ulong)data.Length - 4 < length)
                        return false;
                    data = data[(4 + (int)length)..];
                }
                return true;
            case (1, 1):
                if (data.Length < 6 || (data[0] & 1) != 0)
                    return false;
                mac = MacAddress.From(data);
                return true;
            case (3, 0):
                return true;
            case (4, 0):
                if (data.Length < 2 || data[1] != 0 || data[0] is < 1 or > 3)
                    return false;
                pairs = data[0];
                return true;
            case (5, 0):
                if (data.Length < 8)
                    return false;
                ulong wanted = BinaryPrimitives.ReadUInt64LittleEndian(data);
                if ((wanted & ~allowed) != 0)
                    return false;
                bool csum = (wanted & 2) != 0;
                bool tso = (wanted & 0x180) != 0;
                offloads = !csum ? 0 : tso ? wanted : wanted & ~0x200UL;
                return true;
            default:
                return false;
        }
    }

    private static void AssertReceives(NetGuest guest, params MacAddress[] expected)
    {
        guest.Ports[0].Arrive([.. new[] { Card, Other, Group, MacAddress.Broadcast }.Select(to => Frames.Ethernet(to, 10))]);
        guest.Settle();
        var got = new List<MacAddress>();
        while (guest.Receive.TryGetUsed(out UsedBuffer used))
            got.Add(MacAddress.From(guest.Receive.Read(used).AsSpan(Frames.HeaderLength)));
        Assert.Equal(expected, got);
        guest.Provide(expected.Length, 200);
    }

    private static byte[] Table(MacAddress[] unicast, MacAddress[] multicast)
    {
        var bytes = new List<byte>();
        foreach (MacAddress[] table in new[] { unicast, multicast })
        {
            bytes.AddRange(BitConverter.GetBytes(table.Length));
            foreach (MacAddress address in table)
            {
                byte[] one = new byte[6];
                address.CopyTo(one);
                bytes.AddRange(one);
            }
        }
        return [.. bytes];
    }
}
