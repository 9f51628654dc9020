using Vmm.Core.Interop;

namespace Vmm.Core.Tests.Boot;

/// <summary>The libraries that unpack kernels need not be there: what is missing is 0, not an error.</summary>
public sealed class NativeLibraryProbeTests
{
    [Fact]
    public void Missing_library_and_missing_function_are_0()
    {
        Assert.Equal(0, NativeLibraryProbe.Find("libvmm-no-such-library.so.9", "f"));
        Assert.Equal(0, NativeLibraryProbe.Find("libc.so.6", "vmm_no_such_function"));
        Assert.NotEqual(0, NativeLibraryProbe.Find("libc.so.6", "malloc"));
    }
}
