using Vmm.Core.Interop;
using Vmm.Core.Sockets;

namespace Vmm.Core.Tests.Sockets;

public sealed class UnixStreamTests : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("unix-stream");

    private string Path => System.IO.Path.Combine(_directory.FullName, "s");

    public void Dispose() => _directory.Delete(recursive: true);

    [Fact]
    public void Bytes_and_descriptors_arrive_together_and_the_descriptors_are_duplicates()
    {
        (UnixStream a, UnixStream b) = UnixStream.CreatePair();
        using (a)
        using (b)
        {
            using var file = new FileDescriptor(LibC.open("/dev/zero", LibC.O_RDONLY | LibC.O_CLOEXEC, 0));
            Assert.Equal(0, a.Send([1, 2, 3, 4], [file.Number, file.Number], 1000));
            var received = new List<FileDescriptor>();
            byte[] data = new byte[4];
            Assert.Equal(0, b.ReceiveExactly(data, received, 1000));
            Assert.Equal([1, 2, 3, 4], data);
            Assert.Equal(2, received.Count);
            foreach (FileDescriptor descriptor in received)
            {
                Assert.NotEqual(file.Number, descriptor.Number);
                Assert.Equal(LibC.FD_CLOEXEC, LibC.fcntl(descriptor.Number, LibC.F_GETFD, 0));
                descriptor.Dispose();
            }
        }
    }

    [Fact]
    public void All_descriptors_that_the_kernel_passes_at_once_are_received()
    {
        (UnixStream a, UnixStream b) = UnixStream.CreatePair();
        using (a)
        using (b)
        {
            int[] many = [.. Enumerable.Repeat(a.Number, UnixStream.MaximumDescriptors)];
            Assert.Equal(0, a.Send([7], many, 1000));
            var received = new List<FileDescriptor>();
            Assert.Equal(0, b.ReceiveExactly(new byte[1], received, 1000));
            Assert.Equal(UnixStream.MaximumDescriptors, received.Count);
            received.ForEach(descriptor => descriptor.Dispose());
        }
    }

    [Fact]
    public void Who_does_not_read_is_given_up_on_and_who_left_is_an_error()
    {
        (UnixStream a, UnixStream b) = UnixStream.CreatePair();
        using (a)
        {
            Assert.Equal(LibC.ETIMEDOUT, a.Send(new byte[8 << 20], [], 50));
            b.Dispose();
            Assert.Equal(LibC.EPIPE, a.Send([1], [], 50));
        }
    }

    [Fact]
    public void Who_sends_a_part_is_waited_for_until_the_deadline()
    {
        (UnixStream a, UnixStream b) = UnixStream.CreatePair();
        using (a)
        using (b)
        {
            Assert.Equal(0, a.Send([1, 2], [], 50));
            Assert.Equal(LibC.ETIMEDOUT, b.ReceiveExactly(new byte[3], [], 50));
            a.Dispose();
            Assert.Equal(LibC.ECONNRESET, b.ReceiveExactly(new byte[3], [], 50));
        }
    }

    [Fact]
    public void A_shutdown_wakes_who_waits()
    {
        (UnixStream a, UnixStream b) = UnixStream.CreatePair();
        using (a)
        using (b)
        {
            int result = 0;
            var waiter = new Thread(() => result = b.ReceiveExactly(new byte[1], [], -1));
            waiter.Start();
            b.Shutdown();
            Assert.True(waiter.Join(TimeSpan.FromSeconds(30)));
            Assert.Equal(LibC.ECONNRESET, result);
            b.Dispose();
            b.Shutdown();
        }
    }

    [Fact]
    public void A_listener_replaces_an_abandoned_socket_but_nothing_else()
    {
        using (UnixListener first = UnixListener.Listen(Path, "the socket"))
        {
            using UnixStream? client = UnixStream.TryConnect(Path, out int error);
            Assert.Equal(0, error);
            using UnixStream? server = first.TryAccept();
            Assert.NotNull(server);
            Assert.Null(first.TryAccept());
            Assert.Equal(0, client!.Send([9], [], 1000));
            Assert.True(server.HasInput);
            Assert.Throws<VmmException>(() => UnixListener.Listen(Path, "the socket"));
        }
        Assert.False(File.Exists(Path));
        File.WriteAllText(Path, "mine");
        Assert.Throws<VmmException>(() => UnixListener.Listen(Path, "the socket"));
        Assert.Equal("mine", File.ReadAllText(Path));
        File.Delete(Path);
        // What a killed program leaves: a name that is bound, and nobody behind it.
        BindAndLeave(Path);
        Assert.True(File.Exists(Path));
        using UnixListener second = UnixListener.Listen(Path, "the socket");
    }

    [Theory]
    [InlineData("")]
    [InlineData("/a\0b")]
    public void A_text_that_is_no_path_is_refused(string path)
    {
        Assert.Null(UnixStream.TryConnect(path, out int error));
        Assert.Equal(LibC.EINVAL, error);
        Assert.Throws<VmmException>(() => UnixListener.Listen(path, "the socket"));
    }

    [Fact]
    public void A_path_that_is_too_long_is_refused() =>
        Assert.Null(UnixStream.TryConnect(new string('x', 108), out _));

    private static unsafe void BindAndLeave(string path)
    {
        Assert.True(UnixStream.TryAddress(path, out sockaddr_un address));
        using var socket = new FileDescriptor(LibC.socket(LibC.AF_UNIX, LibC.SOCK_STREAM, 0));
        Assert.Equal(0, LibC.bind(socket.Number, &address, (uint)sizeof(sockaddr_un)));
    }
}
