using Vmm.Core;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Rings;

/// <summary>What is done with eventfds here.</summary>
internal static unsafe class EventFd
{
    internal static FileDescriptor Create()
    {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        return fd >= 0 ? new FileDescriptor(fd) : throw VmmException.Host($"Cannot make an eventfd: {strerror(errno)}.");
    }

    /// <summary>Adds one; nothing where the descriptor is closed already.</summary>
    internal static void Signal(FileDescriptor file)
    {
        bool held = false;
        try
        {
            file.DangerousAddRef(ref held);
            ulong one = 1;
            _ = write(file.Number, &one, sizeof(ulong));
        }
        catch (ObjectDisposedException)
        {
            // Its number may be another file's by now.
        }
        finally
        {
            if (held)
                file.DangerousRelease();
        }
    }

    /// <summary>Takes a signal off that poll has announced. A descriptor that would block is not waited for.</summary>
    internal static void Drain(FileDescriptor file)
    {
        var wanted = new pollfd { fd = file.Number, events = POLLIN };
        ulong count;
        if (poll(&wanted, 1, 0) > 0 && (wanted.revents & POLLIN) != 0)
            _ = read(file.Number, &count, sizeof(ulong));
    }

    /// <summary>Waits for either descriptor to be readable; a null one is left out.</summary>
    internal static void WaitAny(FileDescriptor? first, FileDescriptor second, int timeoutMilliseconds)
    {
        pollfd* wanted = stackalloc pollfd[2];
        wanted[0] = new pollfd { fd = second.Number, events = POLLIN };
        wanted[1] = new pollfd { fd = first?.Number ?? -1, events = POLLIN };
        _ = poll(wanted, 2, timeoutMilliseconds);
    }
}
