using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Net;

public sealed class NetPropertyTests
{
    private static readonly MacAddress Other = Frames.Mac("52:54:00:00:00:01");

    /// <summary>
    /// Frames of any length into buffers of any shape, provided at any time: each comes whole and in order, in as many buffers as it
    /// needs of those that there are.
    /// </summary>
    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Frames_fill_buffers_of_any_shape_in_order(int rings)
    {
        RingFeatures features = RingFeatures.Of(rings);
        Gen<int[]> shape = Gen.Choose(1, 4).SelectMany(n => Gen.OneOf(Gen.Choose(1, 40), Gen.Choose(1, 3000)).ArrayOf(n))
            .Select(s => s.Sum() < 12 ? [.. s, 12] : s);
        Gen<Step> step = Gen.Frequency(
            (3, Gen.OneOf(Gen.Choose(0, 200), Gen.Choose(0, 6000), Gen.Choose(50_000, 65_000)).Select(n => new Step(n, []))),
            (12, shape.Select(s => new Step(-1, s))),
            (1, Gen.Constant(new Step(-2, []))));
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(60), Prop.ForAll(step.ArrayOf(60).ToArbitrary(), steps =>
        {
            using var guest = new NetGuest(rings: features);
            var expected = new Queue<byte[]>();
            var buffers = new Queue<int>();
            int seed = 0;
            foreach (Step s in steps)
            {
                if (s.Payload >= 0)
                {
                    byte[] frame = Frames.Ethernet(Other, s.Payload, ++seed, 1, 1);
                    expected.Enqueue(frame);
                    guest.Ports[0].Arrive(frame);
                }
                else if (s.Payload == -2)
                {
                    // All that can be given is given; a frame that waits for buffers is lost when the queue stops.
                    guest.Settle();
                    Take(guest, expected, buffers);
                    int before = (int)guest.Counter("rx_dropped");
                    guest.Driver.Restart();
                    if (guest.Counter("rx_dropped") > before)
                        expected.Dequeue();
                }
                else if (guest.Receive.FreeDescriptors > 4)
                {
                    guest.Receive.Add([.. s.Buffer.Select(n => new GuestBuffer(guest.Driver.Arena.Allocate((ulong)n), (uint)n, true))], features.Indirect);
                    guest.Receive.Kick();
                    buffers.Enqueue(s.Buffer.Sum());
                }
                else
                {
                    guest.Settle();
                    Take(guest, expected, buffers);
                }
            }
            // In the end there is room for all.
            while (expected.Count > 0)
            {
                guest.Settle();
                Take(guest, expected, buffers);
                while (guest.Receive.FreeDescriptors > 4)
                {
                    guest.Receive.Add([new GuestBuffer(guest.Driver.Arena.Allocate(4096), 4096, true)]);
                    buffers.Enqueue(4096);
                }
                guest.Receive.Kick();
            }
            return !guest.Driver.Host.IsResetNeeded && guest.Counter("rx_errors") == 0;
        }));
    }

    /// <summary>Chains of any shape: those that hold a frame go out whole and in order, and all of them come back.</summary>
    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Chains_of_any_shape_go_out_in_order(int rings)
    {
        RingFeatures features = RingFeatures.Of(rings);
        Gen<int[][]> chains = Gen.Choose(1, 9).SelectMany(n => Gen.OneOf(Gen.Choose(1, 30), Gen.Choose(1, 9000)).ArrayOf(n)).ArrayOf();
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(40), Prop.ForAll(chains.ToArbitrary(), lengths =>
        {
            using var guest = new NetGuest(rings: features);
            var random = new Random(lengths.Length);
            var expected = new List<byte[]>();
            int inFlight = 0;
            foreach (int[] chain in lengths)
            {
                byte[] frame = new byte[chain.Sum()];
                random.NextBytes(frame);
                var buffers = new List<GuestBuffer>();
                int offset = 0;
                foreach (int length in chain)
                {
                    ulong address = guest.Driver.Arena.Allocate((ulong)length);
                    guest.Driver.Memory.Write(address, frame.AsSpan(offset, length));
                    buffers.Add(new GuestBuffer(address, (uint)length));
                    offset += length;
                }
                while (guest.Transmit.Add(buffers.ToArray(), features.Indirect) < 0)
                {
                    guest.Transmit.Kick();
                    guest.Transmit.WaitUsed();
                    inFlight--;
                }
                inFlight++;
                if (frame.Length is >= 26 and <= 12 + 65535 + 22)
                    expected.Add(frame);
            }
            guest.Transmit.Kick();
            while (inFlight-- > 0)
                guest.Transmit.WaitUsed();
            byte[][] sent = [.. guest.Ports[0].Sent];
            return sent.Length == expected.Count && sent.Zip(expected).All(p => p.First.AsSpan().SequenceEqual(p.Second));
        }));
    }

    /// <summary>A filter wants what its definition says.</summary>
    [Fact]
    public void A_filter_wants_what_its_modes_and_tables_say()
    {
        Gen<MacAddress> address = Gen.Frequency(
            (1, Gen.Constant(MacAddress.Broadcast)),
            (6, Gen.Elements(0x0200_0000_0000UL, 0x0300_0000_0000UL).SelectMany(high => Gen.Choose(0, 5).Select(low => new MacAddress(high | (uint)low)))));
        Gen<Case> cases = from station in Gen.Choose(0, 5)
                          from modes in Gen.Choose(0, 63)
                          from unicast in address.Where(a => !a.IsMulticast).ArrayOf()
                          from multicast in address.Where(a => a.IsMulticast).ArrayOf()
                          from to in address
                          select new Case(new MacAddress(0x0200_0000_0000UL | (uint)station), (NetReceiveModes)modes, unicast, multicast, to);
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(2000), Prop.ForAll(cases.ToArbitrary(), c =>
        {
            bool Has(NetReceiveModes mode) => (c.Modes & mode) != 0;
            bool wanted = Has(NetReceiveModes.Promiscuous)
                || (c.To == MacAddress.Broadcast && !Has(NetReceiveModes.NoBroadcast))
                || (c.To != MacAddress.Broadcast && c.To.IsMulticast && !Has(NetReceiveModes.NoMulticast)
                    && (Has(NetReceiveModes.AllMulticast) || c.Multicast.Contains(c.To)))
                || (!c.To.IsMulticast && !Has(NetReceiveModes.NoUnicast)
                    && (Has(NetReceiveModes.AllUnicast) || c.To == c.Station || c.Unicast.Contains(c.To)));
            return new NetFilter(c.Station, c.Modes, c.Unicast, c.Multicast).Wants(c.To) == wanted;
        }));
    }

    [Fact]
    public void An_address_is_read_as_it_is_written()
    {
        Check.One(Config.QuickThrowOnFailure, Prop.ForAll<ulong>(value =>
        {
            var address = new MacAddress(value & 0xFFFF_FFFF_FFFF);
            byte[] bytes = new byte[6];
            address.CopyTo(bytes);
            return MacAddress.TryParse(address.ToString(), out MacAddress read) && read == address
                && MacAddress.TryParse(address.ToString().ToUpperInvariant(), out read) && read == address
                && MacAddress.From(bytes) == address && address.IsMulticast == ((bytes[0] & 1) != 0);
        }));
        foreach (string wrong in (string[])["", "52:54:00:12:34", "52-54-00-12-34-56", "52:54:00:12:34:5g", "52:54:00:12:34:56:", " 2:54:00:12:34:56"])
            Assert.False(MacAddress.TryParse(wrong, out _), wrong);
    }

    private static void Take(NetGuest guest, Queue<byte[]> expected, Queue<int> buffers)
    {
        while (guest.Receive.TryGetUsed(out UsedBuffer used))
        {
            byte[] first = guest.Receive.Read(used);
            var frame = new List<byte>(first);
            int count = first[10] | (first[11] << 8);
            int room = buffers.Dequeue();
            for (int i = 1; i < count; i++)
            {
                Assert.Equal(room, frame.Count);
                room += buffers.Dequeue();
                Assert.True(guest.Receive.TryGetUsed(out used));
                frame.AddRange(guest.Receive.Read(used));
            }
            byte[] wanted = expected.Dequeue();
            Assert.Equal(wanted.Length, frame.Count);
            Assert.True(wanted.AsSpan(12).SequenceEqual(frame.ToArray().AsSpan(12)));
        }
    }

    private sealed record Step(int Payload, int[] Buffer);

    private sealed record Case(MacAddress Station, NetReceiveModes Modes, MacAddress[] Unicast, MacAddress[] Multicast, MacAddress To);
}
