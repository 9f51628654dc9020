using System.Text;
using Vmm.Core.Interop;

namespace Vmm.Core;

/// <summary>Names of threads as ps, top and debuggers show them. NativeAOT keeps Thread.Name to itself, so each thread says its own.</summary>
internal static class ThreadName
{
    // The kernel's TASK_COMM_LEN, with the NUL.
    private const int Capacity = 16;

    /// <summary>Names the calling thread as its <see cref="Thread.Name"/>; of longer names the kernel takes 15 bytes.</summary>
    internal static unsafe void Publish()
    {
        if (Thread.CurrentThread.Name is not { } name)
            return;
        // Safe: the buffer ends with a NUL, since no more than all but its last byte is written.
        byte* buffer = stackalloc byte[Capacity];
        new Span<byte>(buffer, Capacity).Clear();
        _ = Encoding.UTF8.TryGetBytes(name, new Span<byte>(buffer, Capacity - 1), out _);
        // A name is a help for people; nothing depends on it.
        _ = LibC.prctl(LibC.PR_SET_NAME, buffer);
    }
}
