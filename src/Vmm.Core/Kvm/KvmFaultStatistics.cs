using System.Runtime.InteropServices;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Kvm;

/// <summary>How many of a vCPU's faults on guest memory KVM has taken and not settled, by its binary statistics. Read by any thread, while the vCPU runs.</summary>
internal sealed unsafe class KvmFaultStatistics : IDisposable
{
    // A kernel that tells more is not one that this was written for.
    private const int MostBytes = 1 << 16;

    private readonly FileDescriptor _fd;
    private readonly long _taken, _fixed, _emulated, _spurious;

    private KvmFaultStatistics(FileDescriptor fd, long taken, long settled, long emulated, long spurious)
    {
        _fd = fd;
        (_taken, _fixed, _emulated, _spurious) = (taken, settled, emulated, spurious);
    }

    /// <summary>Opens a vCPU's, which does not run yet; null where this host's KVM does not count these things.</summary>
    internal static KvmFaultStatistics? TryOpen(KvmVcpu vcpu)
    {
        FileDescriptor? fd = vcpu.TryOpenStatistics();
        if (fd == null)
            return null;
        kvm_stats_header header;
        if (Read(fd, &header, sizeof(kvm_stats_header), 0))
        {
            long size = (long)header.num_desc * (sizeof(kvm_stats_desc) + header.name_size);
            byte[] descriptors = new byte[size is > 0 and <= MostBytes ? size : 0];
            fixed (byte* start = descriptors)
            {
                if (descriptors.Length > 0 && Read(fd, start, descriptors.Length, header.desc_offset))
                {
                    long taken = Find(header, descriptors, "pf_taken"u8), settled = Find(header, descriptors, "pf_fixed"u8);
                    long emulated = Find(header, descriptors, "pf_emulate"u8), spurious = Find(header, descriptors, "pf_spurious"u8);
                    if (taken >= 0 && settled >= 0 && emulated >= 0 && spurious >= 0)
                        return new KvmFaultStatistics(fd, taken, settled, emulated, spurious);
                }
            }
        }
        fd.Dispose();
        return null;
    }

    /// <summary>Faults that were taken and neither settled nor found to be none: the vCPU waits in them, or takes them again.</summary>
    internal bool TryReadUnsettled(out long count)
    {
        long taken, settled, emulated, spurious;
        // What they settle was taken before: read last, they could make the difference too small, but never too large for long.
        bool ok = Read(_fd, &taken, sizeof(long), _taken) & Read(_fd, &settled, sizeof(long), _fixed)
            & Read(_fd, &emulated, sizeof(long), _emulated) & Read(_fd, &spurious, sizeof(long), _spurious);
        count = ok ? taken - settled - emulated - spurious : 0;
        return ok;
    }

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();

    /// <summary>Where a statistic's value is; -1 where there is none of that name.</summary>
    private static long Find(in kvm_stats_header header, ReadOnlySpan<byte> descriptors, ReadOnlySpan<byte> name)
    {
        int step = sizeof(kvm_stats_desc) + (int)header.name_size;
        for (int at = 0; at + step <= descriptors.Length; at += step)
        {
            ReadOnlySpan<byte> field = descriptors.Slice(at + sizeof(kvm_stats_desc), (int)header.name_size);
            int end = field.IndexOf((byte)0);
            if (field[..(end < 0 ? field.Length : end)].SequenceEqual(name))
                return (long)header.data_offset + MemoryMarshal.Read<kvm_stats_desc>(descriptors[at..]).offset;
        }
        return -1;
    }

    private static bool Read(FileDescriptor fd, void* to, int length, long offset) => pread(fd.Number, to, (nuint)length, offset) == length;
}
