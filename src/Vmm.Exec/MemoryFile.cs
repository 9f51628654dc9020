using System.Globalization;
using Microsoft.Win32.SafeHandles;
using Vmm.Core;
using Vmm.Core.Interop;

namespace Vmm.Exec;

/// <summary>A file in memory, without a name in any directory: it is gone with this process, however that ends.</summary>
internal sealed class MemoryFile : IDisposable
{
    private readonly FileStream _stream;
    private readonly int _number;

    /// <summary>Makes an empty one.</summary>
    /// <exception cref="VmmException">The host refuses.</exception>
    internal MemoryFile(string name)
    {
        _number = LibC.memfd_create(name, LibC.MFD_CLOEXEC);
        if (_number < 0)
            throw VmmException.Host($"Cannot make a file in memory for the {name}: {LibC.strerror(LibC.errno)}.");
        _stream = new FileStream(new SafeFileHandle(_number, ownsHandle: true), FileAccess.ReadWrite);
    }

    /// <summary>To be written to.</summary>
    internal Stream Stream => _stream;

    /// <summary>A path that this process can open.</summary>
    internal string Path => string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{_number}");

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();
}
