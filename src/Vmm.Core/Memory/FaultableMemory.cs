using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Memory;

/// <summary>
/// Access to memory of this process that may not be there: a mapped file that somebody truncated, a reservation. To dereference it would
/// end the process (SIGBUS, SIGSEGV); these are system calls, which fail instead.
/// </summary>
internal static unsafe class FaultableMemory
{
    private const ulong Page = GuestRegion.SmallPage;

    private static readonly int s_self = Environment.ProcessId;

    /// <summary>Copies from the start of a range as much as is there.</summary>
    /// <returns>How many bytes.</returns>
    internal static int Read(byte* from, Span<byte> to)
    {
        fixed (byte* buffer = to)
        {
            var local = new iovec { iov_base = buffer, iov_len = (nuint)to.Length };
            var remote = new iovec { iov_base = from, iov_len = (nuint)to.Length };
            return (int)Math.Max(0, process_vm_readv(s_self, &local, 1, &remote, 1, 0));
        }
    }

    /// <summary>Copies to the start of a range as much as is there and writable.</summary>
    /// <returns>How many bytes.</returns>
    internal static int Write(byte* to, ReadOnlySpan<byte> from)
    {
        fixed (byte* buffer = from)
        {
            var local = new iovec { iov_base = buffer, iov_len = (nuint)from.Length };
            var remote = new iovec { iov_base = to, iov_len = (nuint)from.Length };
            return (int)Math.Max(0, process_vm_writev(s_self, &local, 1, &remote, 1, 0));
        }
    }

    /// <summary>
    /// How much of a mapped file is still there, if it was truncated: the last page is looked at, and if that is gone, the first that is
    /// gone is searched for by halves.
    /// </summary>
    /// <param name="start">The first byte; page-aligned.</param>
    /// <param name="length">Bytes, whole pages; above 0.</param>
    /// <returns>Bytes from the start, whole pages; <paramref name="length"/> where nothing is missing.</returns>
    internal static ulong LengthLeft(byte* start, ulong length)
    {
        ulong there = 0, gone = length / Page;
        if (!IsGone(start + ((gone - 1) * Page)))
            return length;
        gone--;
        while (there < gone)
        {
            ulong middle = there + ((gone - there) / 2);
            if (IsGone(start + (middle * Page)))
                gone = middle;
            else
                there = middle + 1;
        }
        return there * Page;
    }

    private static bool IsGone(byte* page)
    {
        byte sink;
        var local = new iovec { iov_base = &sink, iov_len = 1 };
        var remote = new iovec { iov_base = page, iov_len = 1 };
        // Any other error is the call's own: it says nothing of the page.
        return process_vm_readv(s_self, &local, 1, &remote, 1, 0) < 0 && errno == EFAULT;
    }
}
