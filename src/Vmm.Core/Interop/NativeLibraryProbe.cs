using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>
/// Finds a library that need not be there, by its soname, when it is first wanted. It stays loaded: unloading would save
/// nothing that is not shared with the system anyway.
/// </summary>
internal static class NativeLibraryProbe
{
    /// <summary>The address of a function, or 0 where the library or the function is missing.</summary>
    internal static nint Find(string soname, string function) =>
        NativeLibrary.TryLoad(soname, out nint library) && NativeLibrary.TryGetExport(library, function, out nint address) ? address : 0;
}
