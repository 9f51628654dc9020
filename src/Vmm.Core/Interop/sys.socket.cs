using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>The path of <see cref="sockaddr_un"/>.</summary>
[InlineArray(108)]
internal struct sockaddr_un_path
{
    private byte _element0;
}

/// <summary>struct sockaddr_un of sys/un.h: 110 bytes.</summary>
internal struct sockaddr_un
{
    internal ushort sun_family;
    internal sockaddr_un_path sun_path;
}

/// <summary>The data of <see cref="sockaddr"/>.</summary>
[InlineArray(14)]
internal struct sockaddr_data
{
    private byte _element0;
}

/// <summary>struct sockaddr: 16 bytes.</summary>
internal struct sockaddr
{
    internal ushort sa_family;
    internal sockaddr_data sa_data;
}

internal static unsafe partial class LibC
{
    internal const int AF_UNIX = 1;
    internal const int AF_INET = 2;
    internal const int SOCK_STREAM = 1;
    internal const int SOCK_DGRAM = 2;
    internal const int SOCK_NONBLOCK = 0x800;
    internal const int SOCK_CLOEXEC = 0x80000;
    internal const int MSG_NOSIGNAL = 0x4000;
    internal const int ECONNREFUSED = 111;
    internal const int EADDRINUSE = 98;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int socket(int domain, int type, int protocol);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int bind(int sockfd, sockaddr_un* addr, uint addrlen);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int listen(int sockfd, int backlog);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int connect(int sockfd, sockaddr_un* addr, uint addrlen);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int accept4(int sockfd, void* addr, uint* addrlen, int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint send(int sockfd, void* buf, nuint len, int flags);
}
