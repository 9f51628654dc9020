using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Block;

/// <summary>
/// Aligned buffers for what O_DIRECT does not take from guest memory as it lies. A fixed number, so that a guest cannot make the host
/// spend more; whoever gets none goes through the page cache.
/// </summary>
internal sealed unsafe class BouncePool : IDisposable
{
    /// <summary>Bytes of a buffer; larger requests take several turns through it.</summary>
    public const int BufferSize = 256 * 1024;

    private const int Buffers = 8;

    private readonly HostMapping? _memory = HostMapping.TryMap(Buffers * BufferSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    private uint _free = (1u << Buffers) - 1;

    /// <summary>Takes a buffer; -1 when there is none.</summary>
    public int TryRent()
    {
        if (_memory == null || _free == 0)
            return -1;
        int buffer = System.Numerics.BitOperations.TrailingZeroCount(_free);
        _free &= ~(1u << buffer);
        return buffer;
    }

    /// <summary>Gives one back.</summary>
    public void Return(int buffer) => _free |= 1u << buffer;

    /// <summary>The buffer's bytes; rented.</summary>
    public byte* Address(int buffer) => _memory!.Address + ((nuint)buffer * BufferSize);

    /// <summary>None is rented.</summary>
    public void Dispose() => _memory?.Dispose();
}
