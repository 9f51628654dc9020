using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>A file descriptor that is closed exactly once.</summary>
internal sealed class FileDescriptor : SafeHandle
{
    internal FileDescriptor(int fd) : base(-1, ownsHandle: true) => SetHandle(fd);

    public override bool IsInvalid => handle < 0;

    /// <summary>The number. Valid as long as this object is neither disposed nor finalized.</summary>
    internal int Number => (int)handle;

    protected override bool ReleaseHandle() => LibC.close((int)handle) == 0;
}
