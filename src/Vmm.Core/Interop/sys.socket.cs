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

/// <summary>struct msghdr: 56 bytes.</summary>
internal unsafe struct msghdr
{
    internal void* msg_name;
    internal uint msg_namelen;
    internal iovec* msg_iov;
    internal nuint msg_iovlen;
    internal void* msg_control;
    internal nuint msg_controllen;
    internal int msg_flags;
}

/// <summary>struct cmsghdr: 16 bytes; its data follow.</summary>
internal struct cmsghdr
{
    internal nuint cmsg_len;
    internal int cmsg_level;
    internal int cmsg_type;
}

internal static unsafe partial class LibC
{
    internal const int AF_UNIX = 1;
    internal const int AF_INET = 2;
    internal const int SOCK_STREAM = 1;
    internal const int SOCK_DGRAM = 2;
    internal const int SOCK_NONBLOCK = 0x800;
    internal const int SOCK_CLOEXEC = 0x80000;
    internal const int SOL_SOCKET = 1;
    internal const int SO_SNDBUF = 7;
    internal const int SO_PEERCRED = 17;
    internal const int SCM_RIGHTS = 1;
    internal const int MSG_PEEK = 2;
    internal const int MSG_CTRUNC = 8;
    internal const int MSG_DONTWAIT = 0x40;
    internal const int MSG_NOSIGNAL = 0x4000;
    internal const int MSG_CMSG_CLOEXEC = 0x40000000;
    internal const int SHUT_RDWR = 2;
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

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint sendmsg(int fd, msghdr* message, int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint recvmsg(int fd, msghdr* message, int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int socketpair(int domain, int type, int protocol, int* fds);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int shutdown(int fd, int how);
}
