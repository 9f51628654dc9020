using System.Runtime.InteropServices;
using Vmm.Core.Boot;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Boot;

/// <summary>Guest RAM in native memory that begins as zero, each range with a canary page before and after it.</summary>
internal sealed unsafe class TestRam : IDisposable
{
    private const int Guard = 4096;
    private const byte Canary = 0xC5;
    private readonly List<(nint Block, ulong Length)> _blocks = [];

    public TestRam(params (ulong Start, ulong Length)[] ranges)
    {
        var regions = new List<GuestRegion>();
        foreach ((ulong start, ulong length) in ranges)
        {
            byte* block = (byte*)NativeMemory.AllocZeroed((nuint)(length + (2 * Guard)));
            new Span<byte>(block, Guard).Fill(Canary);
            new Span<byte>(block + Guard + length, Guard).Fill(Canary);
            _blocks.Add(((nint)block, length));
            regions.Add(new GuestRegion(start, length, (nint)block + Guard, -1, 0));
        }
        Memory = new GuestMemory(regions);
        E820 = [.. ranges.Select(r => new E820Entry(r.Start, r.Length, (E820Type)1))];
    }

    public GuestMemory Memory { get; }

    public IReadOnlyList<E820Entry> E820 { get; }

    public static TestRam OfMiB(int mib) => new((0, (ulong)mib << 20));

    public BootRequest Request(BootProtocol protocol = BootProtocol.Auto, string commandLine = "console=ttyS0") =>
        new() { KernelPath = "", E820 = E820, Protocol = protocol, CommandLine = commandLine };

    public byte[] Read(ulong address, int length)
    {
        byte[] bytes = new byte[length];
        Assert.True(Memory.TryRead(address, bytes));
        return bytes;
    }

    public T Read<T>(ulong address) where T : unmanaged
    {
        Assert.True(Memory.TryRead(address, out T value));
        return value;
    }

    public bool IsZero(ulong address, ulong length)
    {
        Assert.True(Memory.TryGetSpan(address, (int)length, out Span<byte> span));
        return span.IndexOfAnyExcept((byte)0) < 0;
    }

    public void Fill(byte value)
    {
        foreach ((nint block, ulong length) in _blocks)
            new Span<byte>((byte*)block + Guard, (int)length).Fill(value);
    }

    public void AssertGuards()
    {
        foreach ((nint block, ulong length) in _blocks)
        {
            Assert.Equal(-1, new Span<byte>((byte*)block, Guard).IndexOfAnyExcept(Canary));
            Assert.Equal(-1, new Span<byte>((byte*)block + Guard + length, Guard).IndexOfAnyExcept(Canary));
        }
    }

    public void Dispose()
    {
        foreach ((nint block, _) in _blocks)
            NativeMemory.Free((void*)block);
        _blocks.Clear();
    }
}

/// <summary>A file in managed memory, so that a test need not write one.</summary>
internal sealed class MemoryKernelFile(byte[] bytes, string name = "kernel test", int? length = null) : IKernelFile
{
    private readonly int _length = length ?? bytes.Length;

    public string Name { get; } = name;

    public ulong Length => (ulong)_length;

    public void Read(ulong offset, Span<byte> destination)
    {
        if (offset > Length || (ulong)destination.Length > Length - offset)
            throw KernelFileErrors.Ends(Name, offset, destination.Length);
        bytes.AsSpan((int)offset, destination.Length).CopyTo(destination);
    }
}
