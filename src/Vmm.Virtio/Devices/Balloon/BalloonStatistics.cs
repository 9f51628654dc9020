using System.Buffers.Binary;

namespace Vmm.Virtio.Devices.Balloon;

/// <summary>
/// The last statistics that a guest sent: an array of tags (le16) and values (le64), packed (VIRTIO 1.3 §5.5.6.3). Written by one thread,
/// read by any; a reader may see values of two messages.
/// </summary>
public sealed class BalloonStatistics
{
    private const int EntrySize = 10;

    /// <summary>Bytes of a message that are read: each tag a few times; more is repetition or unknown.</summary>
    internal const int MaximumMessage = 64 * EntrySize;

    private const int Known = (int)BalloonStatistic.DirectReclaims + 1;

    private static readonly string[] _names =
    [
        "guest_swap_in_bytes", "guest_swap_out_bytes", "guest_major_faults", "guest_minor_faults", "guest_free_bytes",
        "guest_total_bytes", "guest_available_bytes", "guest_disk_cache_bytes", "guest_huge_page_allocations",
        "guest_huge_page_failures", "guest_oom_kills", "guest_allocation_stalls", "guest_background_scans", "guest_direct_scans",
        "guest_background_reclaims", "guest_direct_reclaims",
    ];

    private readonly long[] _values = new long[Known];
    private uint _sent;

    /// <summary>A value; null when the guest did not send it. A guest may send anything.</summary>
    public ulong? this[BalloonStatistic statistic] =>
        (uint)statistic < Known && (Volatile.Read(ref _sent) >> (int)statistic & 1) != 0
            ? (ulong)Volatile.Read(ref _values[(int)statistic]) : null;

    /// <summary>Tells those that the guest sent.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        for (int i = 0; i < Known; i++)
        {
            if (this[(BalloonStatistic)i] is { } value)
                sink.Add(_names[i], (long)Math.Min(value, long.MaxValue));
        }
    }

    /// <summary>Takes a message: unknown tags and an incomplete entry at the end are passed over, the last of a tag counts.</summary>
    internal void Update(ReadOnlySpan<byte> message)
    {
        uint sent = 0;
        for (; message.Length >= EntrySize; message = message[EntrySize..])
        {
            ushort tag = BinaryPrimitives.ReadUInt16LittleEndian(message);
            if (tag >= Known)
                continue;
            Volatile.Write(ref _values[tag], BinaryPrimitives.ReadInt64LittleEndian(message[2..]));
            sent |= 1U << tag;
        }
        Volatile.Write(ref _sent, sent);
    }

    internal void Clear() => Volatile.Write(ref _sent, 0);
}
