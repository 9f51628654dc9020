using Vmm.Core.Interop;
using Vmm.Virtio.Queues;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Net;

/// <summary>One queue of a tap: a descriptor whose every read and write is a frame.</summary>
internal sealed unsafe class TapPort(FileDescriptor descriptor, bool canDetach) : INetPort, IDisposable
{
    private readonly int _fd = descriptor.Number;
    private readonly Lock _lock = new();
    private bool _enabled = true;

    /// <inheritdoc/>
    public int Descriptor => _fd;

    /// <inheritdoc/>
    public nint Receive(ReadOnlySpan<GuestSegment> buffers)
    {
        // Safe: the segments are RAM of the guest or of the caller, and the kernel checks them once more.
        fixed (GuestSegment* vector = buffers)
        {
            nint got = readv(_fd, vector, buffers.Length);
            return got < 0 ? -errno : got;
        }
    }

    /// <inheritdoc/>
    public nint Send(ReadOnlySpan<GuestSegment> frame)
    {
        // Safe: as above.
        fixed (GuestSegment* vector = frame)
        {
            nint sent = writev(_fd, vector, frame.Length);
            return sent < 0 ? -errno : sent;
        }
    }

    /// <inheritdoc/>
    public bool TrySetEnabled(bool enabled)
    {
        lock (_lock)
        {
            // The kernel calls it an error to do either twice.
            if (_enabled == enabled)
                return true;
            if (!canDetach)
                return false;
            ifreq request = default;
            request.ifr_flags = (short)(enabled ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
            if (ioctl(_fd, TUNSETQUEUE, &request) < 0)
                return false;
            _enabled = enabled;
            return true;
        }
    }

    /// <summary>Closes it.</summary>
    public void Dispose() => descriptor.Dispose();
}
