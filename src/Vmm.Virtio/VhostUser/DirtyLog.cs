using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Memory;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// Where back-ends note which pages of the guest they wrote: a bit for each page of 4 KiB from guest address 0 on, in shared memory (the
/// specification's "Migration"). Sealed, so that it can be read without care.
/// </summary>
public sealed unsafe class DirtyLog : IDisposable
{
    private const int PageBits = 12;

    private readonly FileDescriptor _file;
    private readonly HostMapping _mapping;

    /// <summary>Makes one in which no page is noted.</summary>
    /// <param name="memory">The guest's memory.</param>
    /// <exception cref="VmmException">The host has no memory for it.</exception>
    public DirtyLog(GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        Length = LengthFor(memory);
        int number = LibC.memfd_create("vhost-user-log", LibC.MFD_CLOEXEC | LibC.MFD_ALLOW_SEALING);
        _file = new FileDescriptor(number);
        HostMapping? mapping = null;
        if (number >= 0 && LibC.ftruncate(number, (long)Length) == 0
            && LibC.fcntl(number, LibC.F_ADD_SEALS, LibC.F_SEAL_SHRINK | LibC.F_SEAL_GROW | LibC.F_SEAL_SEAL) >= 0)
            mapping = HostMapping.TryMap((nuint)Length, LibC.PROT_READ | LibC.PROT_WRITE, LibC.MAP_SHARED, number);
        if (mapping == null)
        {
            int error = LibC.errno;
            _file.Dispose();
            throw VmmException.Host($"Cannot make a log of {Length} bytes for back-ends: {LibC.strerror(error)}.");
        }
        _mapping = mapping;
    }

    /// <summary>Bytes of it.</summary>
    public ulong Length { get; }

    internal int Number => _file.Number;

    /// <summary>Whether there is a bit for every page of a memory.</summary>
    internal bool Covers(GuestMemory memory) => LengthFor(memory) <= Length;

    /// <summary>Takes the pages that were noted since the last time, each once.</summary>
    /// <param name="take">Is given the guest address of each, in rising order.</param>
    public void Take(Action<ulong> take)
    {
        ArgumentNullException.ThrowIfNull(take);
        // Safe: the mapping is as long as this object, and sealed against being cut.
        var words = new Span<long>(_mapping.Address, (int)(Length / sizeof(long)));
        for (int i = 0; i < words.Length; i++)
        {
            // The back-end sets bits meanwhile: each is either in what is taken now or stays for the next time.
            if (Volatile.Read(ref words[i]) == 0)
                continue;
            ulong word = (ulong)Interlocked.Exchange(ref words[i], 0);
            while (word != 0)
            {
                int bit = System.Numerics.BitOperations.TrailingZeroCount(word);
                word &= word - 1;
                take(((ulong)i * 64 + (ulong)bit) << PageBits);
            }
        }
    }

    private static ulong LengthFor(GuestMemory memory) => ((memory.Regions[^1].End >> PageBits) + 63) / 64 * sizeof(ulong);

    /// <inheritdoc/>
    public void Dispose()
    {
        _mapping.Dispose();
        _file.Dispose();
    }
}
