using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>libzstd (zstd.h), where the system has it.</summary>
internal static unsafe class Zstd
{
    internal const string soname = "libzstd.so.1";

    private static readonly delegate* unmanaged[Cdecl]<byte*, nuint, byte*, nuint, nuint> s_decompress =
        (delegate* unmanaged[Cdecl]<byte*, nuint, byte*, nuint, nuint>)NativeLibraryProbe.Find(soname, "ZSTD_decompress");

    private static readonly delegate* unmanaged[Cdecl]<nuint, uint> s_isError =
        (delegate* unmanaged[Cdecl]<nuint, uint>)NativeLibraryProbe.Find(soname, "ZSTD_isError");

    private static readonly delegate* unmanaged[Cdecl]<nuint, byte*> s_getErrorName =
        (delegate* unmanaged[Cdecl]<nuint, byte*>)NativeLibraryProbe.Find(soname, "ZSTD_getErrorName");

    internal static bool IsPresent => s_decompress != null && s_isError != null && s_getErrorName != null;

    /// <summary>Whole frames in one call: no window is allocated, however large the frame's is.</summary>
    internal static nuint ZSTD_decompress(byte* dst, nuint dstCapacity, byte* src, nuint compressedSize) =>
        s_decompress(dst, dstCapacity, src, compressedSize);

    internal static bool ZSTD_isError(nuint code) => s_isError(code) != 0;

    internal static string ZSTD_getErrorName(nuint code) => Marshal.PtrToStringUTF8((nint)s_getErrorName(code)) ?? "unknown error";
}
