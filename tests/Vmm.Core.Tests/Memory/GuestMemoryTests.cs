using System.Runtime.InteropServices;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Memory;

/// <summary>Checked access against a dictionary of bytes, with addresses as a hostile guest would choose them.</summary>
public sealed unsafe class GuestMemoryTests : IDisposable
{
    // Two ranges that touch, one apart, and one that ends at the top of what x86 can address.
    private static readonly (ulong Start, ulong Length)[] Ranges =
        [(0, 0x2000), (0x2000, 0x1000), (0x8000, 0x1000), ((1UL << 52) - 0x1000, 0x1000)];

    private readonly List<nint> _blocks = [];
    private readonly GuestMemory _memory;

    public GuestMemoryTests()
    {
        var regions = new List<GuestRegion>();
        foreach ((ulong start, ulong length) in Ranges)
        {
            // Poisoned on both sides: an access past the end is seen.
            byte* block = (byte*)NativeMemory.Alloc((nuint)length + 128);
            new Span<byte>(block, (int)length + 128).Fill(0xA5);
            new Span<byte>(block + 64, (int)length).Clear();
            _blocks.Add((nint)block);
            regions.Add(new GuestRegion(start, length, (nint)(block + 64), -1, 0));
        }
        regions.Reverse();
        _memory = new GuestMemory(regions);
    }

    private static Gen<ulong> Addresses { get; } =
        from edge in Gen.Elements<ulong>(0, 1, 0xFF8, 0x1FF8, 0x2000, 0x3000, 0x8000, 0x9000, (1UL << 52) - 0x1000, 1UL << 52, 1UL << 63, ulong.MaxValue, ulong.MaxValue - 0x1000, 0xFFFF_FFFF)
        from delta in Gen.Choose(-20, 20)
        select edge + (ulong)(long)delta;

    public void Dispose()
    {
        foreach (nint block in _blocks)
            NativeMemory.Free((void*)block);
    }

    [Fact]
    public void It_answers_as_an_array_of_bytes_does()
    {
        Gen<(ulong Address, int Length, byte Seed, int Kind)> steps =
            from address in Addresses
            from length in Gen.Frequency((8, Gen.Choose(0, 24)), (1, Gen.Choose(0, 0x3100)))
            from seed in Gen.Choose(1, 255)
            from kind in Gen.Choose(0, 5)
            select (address, length, (byte)seed, kind);
        var model = new Dictionary<ulong, byte>();
        Prop.ForAll(steps.ToArbitrary(), step => Step(model, step.Address, step.Length, step.Seed, step.Kind))
            .Check(Config.QuickThrowOnFailure.WithMaxTest(5_000).WithReplay(20261121, 5));
        NothingOutsideWasTouched();
    }

    [Fact]
    public void Hostile_lengths_are_refused()
    {
        foreach (ulong address in new ulong[] { 0, 0x1FFF, 0x3000, ulong.MaxValue, ulong.MaxValue - 7, 1UL << 52, 1UL << 63 })
        {
            foreach (ulong length in new[] { 0x2001UL, 1UL << 32, 1UL << 63, ulong.MaxValue, ulong.MaxValue - address })
            {
                if (length > 0x2000)
                    Assert.False(_memory.Contains(address, length), $"0x{address:x} +0x{length:x}");
            }
            Assert.False(_memory.TryGetSpan(address, -1, out _));
            Assert.False(_memory.TryGetSpan(address, int.MinValue, out _));
            Assert.False(_memory.TryGetSpan(address, int.MaxValue, out _));
        }
        Assert.Equal(0x5000UL, _memory.Size);
        Assert.Equal(4, _memory.Regions.Count);
    }

    [Fact]
    public void Ranges_that_overlap_are_refused()
    {
        Assert.Throws<ArgumentException>(() => new GuestMemory([new GuestRegion(0, 0x2000, 0, -1, 0), new GuestRegion(0x1000, 0x1000, 0, -1, 0)]));
    }

    [Fact]
    public void Values_are_little_endian()
    {
        _memory.Write(0x1001, 0x1122334455667788UL);
        Assert.True(_memory.TryGetSpan(0x1001, 8, out Span<byte> bytes));
        Assert.Equal(new byte[] { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11 }, bytes.ToArray());
        Assert.True(_memory.TryRead(0x1003, out ushort middle));
        Assert.Equal(0x5566, middle);
    }

    [Fact]
    public void Loading_where_there_is_no_memory_says_so()
    {
        VmmException error = Assert.Throws<VmmException>(() => _memory.Write(0x8FFF, new byte[2]));
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        Assert.Equal("Cannot load 2 bytes at guest address 0x8fff: there is no memory there; give the guest more (--memory size=).", error.Message);
        Assert.Throws<VmmException>(() => _memory.Write(ulong.MaxValue, 1));
    }

    private static bool IsRam(ulong address) => Ranges.Any(r => address >= r.Start && address - r.Start < r.Length);

    private static bool AllRam(ulong address, int length)
    {
        for (int i = 0; i < length; i++)
        {
            if (!IsRam(address + (ulong)i))
                return false;
        }
        return true;
    }

    private static bool InOneRange(ulong address, int length) =>
        Ranges.Any(r => address >= r.Start && address - r.Start <= r.Length && (ulong)length <= r.Length - (address - r.Start));

    private bool Step(Dictionary<ulong, byte> model, ulong address, int length, byte seed, int kind)
    {
        byte[] data = new byte[length];
        for (int i = 0; i < length; i++)
            data[i] = (byte)(seed + i);
        bool ram = AllRam(address, length);
        switch (kind)
        {
            case 0:
                bool wrote = _memory.TryWrite(address, data);
                // Bytes before the first that is not RAM may be written; then the model takes what is there.
                for (ulong i = 0; i < (ulong)length && IsRam(address + i); i++)
                    model[address + i] = wrote ? data[i] : Peek(address + i);
                return wrote == ram;
            case 1:
                Span<byte> into = new byte[length];
                return _memory.TryRead(address, into) == ram && (!ram || Same(model, address, into));
            case 2:
                bool got = _memory.TryGetSpan(address, length, out Span<byte> span);
                return got == InOneRange(address, length) && (got ? span.Length == length && Same(model, address, span) : span.IsEmpty);
            case 3:
                bool read = _memory.TryRead(address, out ulong value);
                return read == AllRam(address, 8) && (read ? Same(model, address, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in value))) : value == 0);
            case 4:
                bool written = _memory.TryWrite(address, 0x0102030405060708UL * seed);
                ulong number = 0x0102030405060708UL * seed;
                for (int i = 0; i < 8 && IsRam(address + (ulong)i); i++)
                    model[address + (ulong)i] = written ? (byte)(number >> (8 * i)) : Peek(address + (ulong)i);
                return written == AllRam(address, 8);
            default:
                return _memory.Contains(address, (ulong)length) == InOneRange(address, length);
        }
    }

    private byte Peek(ulong address) => _memory.TryRead(address, out byte value) ? value : throw new InvalidOperationException();

    private static bool Same(Dictionary<ulong, byte> model, ulong address, ReadOnlySpan<byte> bytes)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            if (bytes[i] != model.GetValueOrDefault(address + (ulong)i))
                return false;
        }
        return true;
    }

    private void NothingOutsideWasTouched()
    {
        for (int i = 0; i < Ranges.Length; i++)
        {
            var block = new Span<byte>((void*)_blocks[i], (int)Ranges[i].Length + 128);
            Assert.Equal(-1, block[..64].IndexOfAnyExcept((byte)0xA5));
            Assert.Equal(-1, block[^64..].IndexOfAnyExcept((byte)0xA5));
        }
    }
}
