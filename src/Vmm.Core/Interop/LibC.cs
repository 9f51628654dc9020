using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: DisableRuntimeMarshalling]

namespace Vmm.Core.Interop;

/// <summary>
/// The C library and the kernel's interfaces, under their C names; one file per header. Signatures are blittable, so a call costs
/// what the call costs. Everything that takes a pointer trusts its caller: callers are the typed layers above.
/// </summary>
internal static unsafe partial class LibC
{
    internal const string libc = "libc";

    /// <summary>errno of the last call that was declared with SetLastError.</summary>
    internal static int errno => Marshal.GetLastPInvokeError();
}
