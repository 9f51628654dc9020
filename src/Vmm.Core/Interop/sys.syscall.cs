namespace Vmm.Core.Interop;

internal static partial class LibC
{
    internal const long SYS_io_setup = 206;
    internal const long SYS_io_getevents = 208;
    internal const long SYS_io_submit = 209;
    internal const long SYS_io_uring_setup = 425;
    internal const long SYS_io_uring_enter = 426;
    internal const long SYS_io_uring_register = 427;
}
