using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Events;

/// <summary>
/// Signals an eventfd from within the kernel, as KVM does for a doorbell, which never waits. write(2) does where the counter is full and the
/// file is blocking, and whoever else has the file can make it both at any moment; RWF_NOWAIT is not for eventfds.
/// </summary>
/// <remarks>
/// The kernel signals an eventfd (IOCB_FLAG_RESFD) when an asynchronous read has ended, and one of nothing from memory ends at once. All
/// threads have one queue of such reads. Each takes one result out for the one that it put in, whosever it is.
/// </remarks>
internal static unsafe class KernelSignal
{
    // As many threads may be in the middle of it; more find it full for a moment.
    private const int Room = 256;

    private static readonly object s_lock = new();
    private static nuint s_context;

    // An empty file in memory.
    private static FileDescriptor? s_nothing;

    /// <summary>Gets ready. Nothing of <see cref="Send"/> can fail after it.</summary>
    /// <exception cref="VmmException">The host's kernel does not let us.</exception>
    internal static void Prepare()
    {
        lock (s_lock)
        {
            if (s_nothing != null)
                return;
            var nothing = new FileDescriptor(memfd_create("nothing", MFD_CLOEXEC));
            nuint context = 0;
            // The pointer is to a local.
            if (nothing.IsInvalid || syscall(SYS_io_setup, Room, (nuint)(&context), 0, 0, 0, 0) != 0)
            {
                int error = errno;
                nothing.Dispose();
                throw VmmException.Host(
                    $"Cannot prepare signals to back-end processes: {strerror(error)} (errno {error}). They need the kernel's asynchronous I/O: where that is full, raise fs.aio-max-nr.");
            }
            s_context = context;
            s_nothing = nothing;
        }
    }

    /// <summary>Signals one.</summary>
    /// <param name="eventFd">It.</param>
    internal static void Send(int eventFd)
    {
        iocb read = default;
        read.aio_lio_opcode = IOCB_CMD_PREAD;
        read.aio_fildes = (uint)s_nothing!.Number;
        read.aio_flags = IOCB_FLAG_RESFD;
        read.aio_resfd = (uint)eventFd;
        iocb* reads = &read;
        // The pointers are to locals, which the kernel has done with when it returns. It is full only until others take their results.
        while (syscall(SYS_io_submit, s_context, 1, (nuint)(&reads), 0, 0, 0) < 0 && errno is EAGAIN or EINTR)
            TakeResult();
        TakeResult();
    }

    private static void TakeResult()
    {
        io_event ended;
        _ = syscall(SYS_io_getevents, s_context, 0, 1, (nuint)(&ended), 0, 0);
    }
}
