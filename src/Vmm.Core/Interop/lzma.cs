namespace Vmm.Core.Interop;

/// <summary>liblzma (lzma.h, lzma/container.h), where the system has it.</summary>
internal static unsafe class Lzma
{
    internal const string soname = "liblzma.so.5";

    internal const int LZMA_OK = 0;
    internal const int LZMA_MEM_ERROR = 5;
    internal const int LZMA_MEMLIMIT_ERROR = 6;
    internal const int LZMA_FORMAT_ERROR = 7;
    internal const int LZMA_OPTIONS_ERROR = 8;
    internal const int LZMA_DATA_ERROR = 9;
    internal const int LZMA_BUF_ERROR = 10;

    private static readonly delegate* unmanaged[Cdecl]<ulong*, uint, void*, byte*, nuint*, nuint, byte*, nuint*, nuint, int> s_decode =
        (delegate* unmanaged[Cdecl]<ulong*, uint, void*, byte*, nuint*, nuint, byte*, nuint*, nuint, int>)
            NativeLibraryProbe.Find(soname, "lzma_stream_buffer_decode");

    internal static bool IsPresent => s_decode != null;

    /// <summary>One .xz stream; the positions are moved on by what was taken and written. The memory limit is in bytes.</summary>
    internal static int lzma_stream_buffer_decode(
        ulong* memlimit, uint flags, void* allocator, byte* input, nuint* in_pos, nuint in_size, byte* output, nuint* out_pos, nuint out_size) =>
        s_decode(memlimit, flags, allocator, input, in_pos, in_size, output, out_pos, out_size);
}
