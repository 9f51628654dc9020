using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.Transport.Pci;

namespace Vmm.Virtio.Tests.Transport;

public sealed class MsixTableTests : IDisposable
{
    private const int Vectors = 3;
    private readonly FakeRouter _router = new();
    private readonly MsixTable _table;

    public MsixTableTests() => _table = new MsixTable(Vectors, _router);

    public void Dispose() => _table.Dispose();

    [Fact]
    public void An_entry_is_routed_once_when_it_is_complete()
    {
        _table.SetFunctionMask(false);
        Assert.Equal(1u, Word(0, 3));
        Set(0, 0, 0xFEE0_1000);
        Set(0, 1, 0);
        Set(0, 2, 0x45);
        Assert.Null(_router.Messages[0].Routed);
        Set(0, 3, 0);
        Assert.Equal((0xFEE0_1000UL, 0x45u), _router.Messages[0].Routed);
        Set(0, 3, 1);
        Set(0, 3, 0xFFFF_FFFE);
        Assert.Equal((1, 0u), (_router.Messages[0].Routes, Word(0, 3)));
        // A new target while it is not masked, too.
        Set(0, 2, 0x46);
        Assert.Equal((0xFEE0_1000UL, 0x46u), _router.Messages[0].Routed);
        Set(0, 0, 0x1000);
        Assert.Null(_router.Messages[0].Routed);
    }

    [Fact]
    public void Masked_vectors_stay_pending_and_fire_when_they_are_unmasked()
    {
        Set(1, 0, 0xFEE0_0000);
        _table.Raise(1);
        _table.Raise(1);
        _table.Raise(2);
        _table.Raise(Vectors);
        _table.Raise(-1);
        Assert.Equal(6UL, PendingBits());
        Set(1, 3, 0);
        Assert.Equal(6UL, PendingBits());
        _table.SetFunctionMask(false);
        Assert.Equal((4UL, 1), (PendingBits(), _router.Messages[1].Raised));
        _table.ClearPending(2);
        Set(2, 3, 0);
        Assert.Equal((0UL, 0), (PendingBits(), _router.Messages[2].Raised));
    }

    [Fact]
    public void The_table_is_accessed_in_words_and_pairs_of_them()
    {
        Span<byte> data = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(data, 0x1122_3344_FEE0_0000);
        _table.WriteTable(16, data);
        Assert.Equal((0xFEE0_0000u, 0x1122_3344u), (Word(1, 0), Word(1, 1)));
        foreach ((int offset, int length) in new[] { (0, 1), (0, 2), (2, 4), (4, 8), (48, 4), (44, 8), (-4, 4), (0, 3) })
        {
            data.Fill(0x5A);
            _table.WriteTable(offset, data[..length]);
            _table.ReadTable(offset, data[..length]);
            Assert.All(data[..length].ToArray(), b => Assert.Equal(0xFF, b));
        }
        Assert.Equal(0u, Word(0, 0));
    }

    /// <summary>Whatever is masked and unmasked in whatever order: nothing is lost, nothing comes twice, nothing is sent while masked.</summary>
    [Fact]
    public void Masking_follows_the_model()
    {
        var step = from kind in Gen.Choose(0, 4)
                   from vector in Gen.Choose(0, Vectors - 1)
                   select (kind, vector);
        Prop.ForAll(Gen.ArrayOf(step).ToArbitrary(), steps =>
        {
            var router = new FakeRouter();
            using var table = new MsixTable(Vectors, router);
            bool function = true;
            bool[] masked = [true, true, true], pending = [false, false, false];
            int[] sent = [0, 0, 0];
            foreach ((int kind, int vector) in steps)
            {
                switch (kind)
                {
                    case 0:
                        table.Raise(vector);
                        pending[vector] = true;
                        break;
                    case 1 or 2:
                        masked[vector] = kind == 1;
                        table.WriteTable(16 * vector + 12, [(byte)kind, 0, 0, 0]);
                        break;
                    default:
                        function = kind == 3;
                        table.SetFunctionMask(function);
                        break;
                }
                for (int i = 0; i < Vectors; i++)
                {
                    if (pending[i] && !masked[i] && !function)
                    {
                        pending[i] = false;
                        sent[i]++;
                    }
                    Assert.Equal(sent[i], router.Messages[i].Raised);
                    Assert.Equal(pending[i], (Bits(table) >> i & 1) != 0);
                }
            }
        }).QuickCheckThrowOnFailure();
    }

    /// <summary>A raise that meets an unmask is sent: by the one who raised or by the one who unmasked.</summary>
    [Fact]
    public void A_raise_beside_an_unmask_is_not_lost()
    {
        _table.SetFunctionMask(false);
        const int rounds = 2000;
        using var together = new Barrier(2);
        var raiser = new Thread(() =>
        {
            for (int i = 0; i < rounds; i++)
            {
                together.SignalAndWait();
                _table.Raise(0);
                together.SignalAndWait();
            }
        });
        raiser.Start();
        for (int i = 0; i < rounds; i++)
        {
            Set(0, 3, 1);
            int before = _router.Messages[0].Raised;
            together.SignalAndWait();
            Set(0, 3, 0);
            together.SignalAndWait();
            Assert.Equal((0UL, before + 1), (PendingBits(), _router.Messages[0].Raised));
        }
        raiser.Join();
    }

    private uint Word(int vector, int word)
    {
        Span<byte> data = stackalloc byte[4];
        _table.ReadTable(16 * vector + 4 * word, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Set(int vector, int word, uint value)
    {
        Span<byte> data = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        _table.WriteTable(16 * vector + 4 * word, data);
    }

    private ulong PendingBits() => Bits(_table);

    private static ulong Bits(MsixTable table)
    {
        Span<byte> data = stackalloc byte[8];
        table.ReadPending(0, data);
        return BinaryPrimitives.ReadUInt64LittleEndian(data);
    }
}
