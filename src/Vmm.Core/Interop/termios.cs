using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>The 32 control characters of <see cref="termios"/>.</summary>
[InlineArray(32)]
internal struct termios_cc
{
    private byte _element0;
}

/// <summary>struct termios of glibc on x86-64 and arm64: 60 bytes.</summary>
internal struct termios
{
    internal uint c_iflag;
    internal uint c_oflag;
    internal uint c_cflag;
    internal uint c_lflag;
    internal byte c_line;
    internal termios_cc c_cc;
    internal uint c_ispeed;
    internal uint c_ospeed;
}

internal static unsafe partial class LibC
{
    internal const int TCSANOW = 0;
    internal const int TCSADRAIN = 1;
    internal const uint ISIG = 1;
    internal const uint ICANON = 2;
    internal const uint ECHO = 8;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int tcgetattr(int fd, termios* termios_p);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int tcsetattr(int fd, int optional_actions, termios* termios_p);

    [LibraryImport(libc)]
    internal static partial void cfmakeraw(termios* termios_p);
}
