using Vmm.Core;
using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>An eventfd that gets a thread out of poll(2).</summary>
internal sealed unsafe class WakeEvent : IDisposable
{
    private readonly FileDescriptor _fd;

    internal WakeEvent()
    {
        int fd = LibC.eventfd(0, LibC.EFD_CLOEXEC | LibC.EFD_NONBLOCK);
        if (fd < 0)
            throw VmmException.Host($"Cannot make an eventfd for a console: {LibC.strerror(LibC.errno)}.");
        _fd = new FileDescriptor(fd);
    }

    internal int Number => _fd.Number;

    internal void Set()
    {
        ulong one = 1;

        // It can only fail when the counter is full, and then it is set anyway. The pointer is to a local.
        _ = LibC.write(_fd.Number, &one, sizeof(ulong));
    }

    internal void Clear()
    {
        ulong count;
        _ = LibC.read(_fd.Number, &count, sizeof(ulong));
    }

    public void Dispose() => _fd.Dispose();
}
