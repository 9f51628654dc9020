using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct io_uring_sqe
{
    [FieldOffset(0)] internal byte opcode;
    [FieldOffset(1)] internal byte flags;
    [FieldOffset(2)] internal ushort ioprio;
    [FieldOffset(4)] internal int fd;
    [FieldOffset(8)] internal ulong off;
    [FieldOffset(16)] internal ulong addr;
    [FieldOffset(24)] internal uint len;
    [FieldOffset(28)] internal uint rw_flags;
    [FieldOffset(28)] internal uint fsync_flags;
    [FieldOffset(32)] internal ulong user_data;
    [FieldOffset(40)] internal ushort buf_index;
    [FieldOffset(42)] internal ushort personality;
    [FieldOffset(44)] internal int splice_fd_in;
    [FieldOffset(48)] internal ulong addr3;
}

internal struct io_uring_cqe
{
    internal ulong user_data;
    internal int res;
    internal uint flags;
}

[StructLayout(LayoutKind.Explicit, Size = 40)]
internal struct io_sqring_offsets
{
    [FieldOffset(0)] internal uint head;
    [FieldOffset(4)] internal uint tail;
    [FieldOffset(8)] internal uint ring_mask;
    [FieldOffset(12)] internal uint ring_entries;
    [FieldOffset(16)] internal uint flags;
    [FieldOffset(20)] internal uint dropped;
    [FieldOffset(24)] internal uint array;
}

[StructLayout(LayoutKind.Explicit, Size = 40)]
internal struct io_cqring_offsets
{
    [FieldOffset(0)] internal uint head;
    [FieldOffset(4)] internal uint tail;
    [FieldOffset(8)] internal uint ring_mask;
    [FieldOffset(12)] internal uint ring_entries;
    [FieldOffset(16)] internal uint overflow;
    [FieldOffset(20)] internal uint cqes;
    [FieldOffset(24)] internal uint flags;
}

[StructLayout(LayoutKind.Explicit, Size = 120)]
internal struct io_uring_params
{
    [FieldOffset(0)] internal uint sq_entries;
    [FieldOffset(4)] internal uint cq_entries;
    [FieldOffset(8)] internal uint flags;
    [FieldOffset(12)] internal uint sq_thread_cpu;
    [FieldOffset(16)] internal uint sq_thread_idle;
    [FieldOffset(20)] internal uint features;
    [FieldOffset(24)] internal uint wq_fd;
    [FieldOffset(40)] internal io_sqring_offsets sq_off;
    [FieldOffset(80)] internal io_cqring_offsets cq_off;
}

internal struct io_uring_probe_op
{
    internal byte op;
    internal byte resv;
    internal ushort flags;
    internal uint resv2;
}

/// <summary>Its array of <see cref="io_uring_probe_op"/> follows.</summary>
[StructLayout(LayoutKind.Explicit, Size = 16)]
internal struct io_uring_probe
{
    [FieldOffset(0)] internal byte last_op;
    [FieldOffset(1)] internal byte ops_len;
}

internal static partial class LibC
{
    internal const uint IORING_SETUP_SUBMIT_ALL = 1u << 7;
    internal const uint IORING_SETUP_COOP_TASKRUN = 1u << 8;
    internal const uint IORING_SETUP_SINGLE_ISSUER = 1u << 12;

    internal const uint IORING_FEAT_SINGLE_MMAP = 1u << 0;
    internal const uint IORING_FEAT_NODROP = 1u << 1;
    internal const uint IORING_FEAT_RW_CUR_POS = 1u << 3;

    internal const byte IORING_OP_READV = 1;
    internal const byte IORING_OP_WRITEV = 2;
    internal const byte IORING_OP_FSYNC = 3;
    internal const byte IORING_OP_FALLOCATE = 17;

    internal const byte IOSQE_FIXED_FILE = 1;
    internal const uint IORING_FSYNC_DATASYNC = 1;

    internal const ulong IORING_OFF_SQ_RING = 0;
    internal const ulong IORING_OFF_SQES = 0x10000000;

    internal const uint IORING_CQ_EVENTFD_DISABLED = 1;
    internal const uint IORING_ENTER_GETEVENTS = 1;

    internal const uint IORING_REGISTER_FILES = 2;
    internal const uint IORING_UNREGISTER_FILES = 3;
    internal const uint IORING_REGISTER_EVENTFD = 4;
    internal const uint IORING_REGISTER_PROBE = 8;
    internal const ushort IO_URING_OP_SUPPORTED = 1;
}
