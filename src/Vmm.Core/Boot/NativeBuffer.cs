using System.Runtime.InteropServices;

namespace Vmm.Core.Boot;

/// <summary>
/// Large memory for a short time, outside the managed heap, which would keep it. Pages that are not touched cost nothing.
/// </summary>
internal sealed unsafe class NativeBuffer : IDisposable
{
    private readonly ulong _length;

    /// <summary>Reserves some bytes, at least 1; they hold anything.</summary>
    /// <exception cref="VmmException">There is not so much memory.</exception>
    public NativeBuffer(ulong length)
    {
        _length = length;
        try
        {
            Pointer = (byte*)NativeMemory.Alloc((nuint)length);
        }
        catch (OutOfMemoryException e)
        {
            throw VmmException.Host($"Cannot reserve {length} bytes to unpack the kernel: the host is out of memory; free some.", e);
        }
    }

    public byte* Pointer { get; private set; }

    /// <summary>Fills it from a file.</summary>
    public void Fill(IKernelFile file, ulong offset)
    {
        const int Chunk = 64 << 20;
        for (ulong done = 0; done < _length;)
        {
            int length = (int)Math.Min(_length - done, Chunk);
            // Safe: inside the allocation, which lives until Dispose.
            file.Read(offset + done, new Span<byte>(Pointer + done, length));
            done += (ulong)length;
        }
    }

    public void Dispose()
    {
        NativeMemory.Free(Pointer);
        Pointer = null;
    }
}
