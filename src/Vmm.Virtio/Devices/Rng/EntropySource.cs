using Vmm.Core;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Rng;

/// <summary>Where entropy comes from: the kernel's generator, or a character device. Never waits.</summary>
internal sealed unsafe class EntropySource : IDisposable
{
    private readonly FileDescriptor? _file;

    private EntropySource(FileDescriptor? file) => _file = file;

    /// <summary>Opens a source.</summary>
    /// <param name="path">A character device; null for getrandom(2).</param>
    /// <exception cref="VmmException">It cannot be opened, or its bytes would repeat.</exception>
    internal static EntropySource Open(string? path)
    {
        if (path is null)
            return new EntropySource(null);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
        if (fd < 0)
            throw VmmException.Configuration($"Cannot read entropy from {path}: {strerror(errno)}; name a character device that can be read, such as /dev/urandom.");
        var file = new FileDescriptor(fd);
        statx status;
        // A file would give every guest and every start of one the same bytes, and ends.
        if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &status) != 0 || (status.stx_mode & S_IFMT) != S_IFCHR)
        {
            file.Dispose();
            throw VmmException.Configuration($"Cannot take entropy from {path}: it is not a character device; name one, such as /dev/urandom or /dev/hwrng.");
        }
        return new EntropySource(file);
    }

    /// <summary>Puts entropy into memory; gives how many bytes, 0 when there is none now.</summary>
    internal int Fill(nint memory, int length)
    {
        nint got;
        do
        {
            // The range was checked by the caller; the kernel answers EFAULT for one that is not mapped.
            got = _file is null ? getrandom((void*)memory, (nuint)length, GRND_NONBLOCK) : read(_file.Number, (void*)memory, (nuint)length);
        }
        while (got < 0 && errno == EINTR);
        return (int)Math.Max(0, got);
    }

    /// <inheritdoc/>
    public void Dispose() => _file?.Dispose();
}
