using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices;

/// <summary>
/// Locks a file against other machines. The lock is on the open file description (F_OFD_SETLK): it ends with the last descriptor or with the
/// process, however that ends, and other programs that lock images by their first bytes see it too.
/// </summary>
internal static unsafe class FileLock
{
    /// <summary>Takes the lock without waiting.</summary>
    /// <param name="fd">The file, open for what the lock is for.</param>
    /// <param name="write">Alone, not together with other readers.</param>
    /// <returns>0; EAGAIN where another has it; else the errno.</returns>
    internal static int TryTake(int fd, bool write)
    {
        var wanted = new flock { l_type = write ? F_WRLCK : F_RDLCK };
        if (fcntl(fd, F_OFD_SETLK, &wanted) == 0)
            return 0;
        return errno switch
        {
            EACCES => EAGAIN,
            // A file system without locks (some network ones) is used without; two writers are then the user's to avoid.
            EOPNOTSUPP or ENOSYS or ENOLCK => 0,
            int error => error,
        };
    }
}
