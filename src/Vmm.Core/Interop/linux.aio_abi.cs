using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct iocb
{
    [FieldOffset(0)] internal ulong aio_data;
    [FieldOffset(16)] internal ushort aio_lio_opcode;
    [FieldOffset(18)] internal short aio_reqprio;
    [FieldOffset(20)] internal uint aio_fildes;
    [FieldOffset(24)] internal ulong aio_buf;
    [FieldOffset(32)] internal ulong aio_nbytes;
    [FieldOffset(40)] internal long aio_offset;
    [FieldOffset(56)] internal uint aio_flags;
    [FieldOffset(60)] internal uint aio_resfd;
}

internal struct io_event
{
    internal ulong data;
    internal ulong obj;
    internal long res;
    internal long res2;
}

internal static partial class LibC
{
    internal const ushort IOCB_CMD_PREAD = 0;
    internal const uint IOCB_FLAG_RESFD = 1;
}
