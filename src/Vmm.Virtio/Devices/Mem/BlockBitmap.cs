using System.Numerics;

namespace Vmm.Virtio.Devices.Mem;

/// <summary>Which blocks are plugged. Ranges that are given lie inside it.</summary>
internal sealed class BlockBitmap(int count)
{
    private readonly ulong[] _words = new ulong[(count + 63) / 64];

    /// <summary>Blocks.</summary>
    internal int Count => count;

    /// <summary>The words, the lowest block first.</summary>
    internal ReadOnlySpan<ulong> Words => _words;

    /// <summary>How many of [first, +length) are set.</summary>
    internal int CountSet(int first, int length)
    {
        int sum = 0;
        for (int at = first, end = first + length; at < end; at = NextWord(at))
            sum += BitOperations.PopCount(_words[at >> 6] & Mask(at, end));
        return sum;
    }

    /// <summary>Sets or clears all of [first, +length).</summary>
    internal void Fill(int first, int length, bool value)
    {
        for (int at = first, end = first + length; at < end; at = NextWord(at))
        {
            ulong mask = Mask(at, end);
            _words[at >> 6] = value ? _words[at >> 6] | mask : _words[at >> 6] & ~mask;
        }
    }

    /// <summary>Takes over saved words; false, and nothing changed, where they are of another number of blocks.</summary>
    internal bool TryLoad(ReadOnlySpan<ulong> words)
    {
        if (words.Length != _words.Length || (count % 64 != 0 && words[^1] >> count % 64 != 0))
            return false;
        words.CopyTo(_words);
        return true;
    }

    private static int NextWord(int at) => (at | 63) + 1;

    /// <summary>The bits of the word of <paramref name="at"/> from there to below <paramref name="end"/>.</summary>
    private static ulong Mask(int at, int end)
    {
        int last = Math.Min(end - 1, at | 63) & 63;
        return ulong.MaxValue << (at & 63) & ulong.MaxValue >> (63 - last);
    }
}
