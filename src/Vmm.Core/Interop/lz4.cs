namespace Vmm.Core.Interop;

/// <summary>liblz4 (lz4.h), where the system has it.</summary>
internal static unsafe class Lz4
{
    internal const string soname = "liblz4.so.1";

    private static readonly delegate* unmanaged[Cdecl]<byte*, byte*, int, int, int> s_decompress =
        (delegate* unmanaged[Cdecl]<byte*, byte*, int, int, int>)NativeLibraryProbe.Find(soname, "LZ4_decompress_safe");

    internal static bool IsPresent => s_decompress != null;

    /// <summary>The bytes written, at most <paramref name="dstCapacity"/>; negative where the block is malformed or larger.</summary>
    internal static int LZ4_decompress_safe(byte* src, byte* dst, int compressedSize, int dstCapacity) =>
        s_decompress(src, dst, compressedSize, dstCapacity);
}
