using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Events;

/// <summary>
/// An eventfd: a doorbell that KVM rings for the guest (ioeventfd), an interrupt that KVM delivers (irqfd), or a wake-up between
/// threads. All members may be called by any thread, also after <see cref="Dispose"/>, which makes them do nothing.
/// </summary>
public sealed unsafe class EventNotifier : IDisposable
{
    private readonly FileDescriptor _fd;
    private readonly bool _isShared;

    /// <summary>Makes one that is not signalled.</summary>
    /// <param name="isShared">
    /// Whether another process is given it (<see cref="Share"/>). That one can make the file blocking, and full, whenever it likes: it is
    /// signalled in a way that does not wait even then.
    /// </param>
    /// <exception cref="VmmException">The process has no descriptor left, or the kernel has no such way.</exception>
    public EventNotifier(bool isShared = false)
    {
        if (isShared)
            KernelSignal.Prepare();
        _isShared = isShared;
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0)
            throw VmmException.Host($"Cannot make an eventfd: {strerror(errno)} (errno {errno}). Raise the limit on open files (ulimit -n).");
        _fd = new FileDescriptor(fd);
    }

    /// <summary>The descriptor's number, for KVM and for other processes; valid until <see cref="Dispose"/>.</summary>
    public int Number => _fd.Number;

    /// <summary>The number, to send it to another process.</summary>
    /// <exception cref="InvalidOperationException">It was not made to be shared.</exception>
    internal int Share() => _isShared ? _fd.Number : throw new InvalidOperationException("An eventfd that was not made to be shared is given away.");

    /// <summary>Whether a signal waits to be consumed; it is left there.</summary>
    public bool IsSignalled
    {
        get
        {
            bool held = false;
            try
            {
                _fd.DangerousAddRef(ref held);
                var wanted = new pollfd { fd = _fd.Number, events = POLLIN };
                // The pointer is to a local. Without a time to wait, nothing interrupts it.
                return poll(&wanted, 1, 0) == 1 && (wanted.revents & POLLIN) != 0;
            }
            catch (ObjectDisposedException)
            {
                return false;
            }
            finally
            {
                if (held)
                    _fd.DangerousRelease();
            }
        }
    }

    /// <summary>Signals it.</summary>
    public void Signal()
    {
        bool held = false;
        try
        {
            _fd.DangerousAddRef(ref held);
            if (_isShared)
            {
                KernelSignal.Send(_fd.Number);
                return;
            }
            ulong one = 1;
            // It can only fail when the counter is full, and then it is signalled anyway. The pointer is to a local.
            _ = write(_fd.Number, &one, sizeof(ulong));
        }
        catch (ObjectDisposedException)
        {
            // Whoever waited for it is gone.
        }
        finally
        {
            if (held)
                _fd.DangerousRelease();
        }
    }

    /// <summary>Takes the signal back; false when there was none.</summary>
    public bool TryConsume()
    {
        bool held = false;
        try
        {
            _fd.DangerousAddRef(ref held);
            ulong count;
            var room = new iovec { iov_base = &count, iov_len = sizeof(ulong) };
            // Whoever else has it may have made it blocking: the flag is the file's. The pointers are to locals.
            return preadv2(_fd.Number, &room, 1, -1, RWF_NOWAIT) == sizeof(ulong);
        }
        catch (ObjectDisposedException)
        {
            return false;
        }
        finally
        {
            if (held)
                _fd.DangerousRelease();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();
}
