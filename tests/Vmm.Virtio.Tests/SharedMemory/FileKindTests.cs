using System.Net.Sockets;
using Vmm.Core.Interop;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>Which kinds of descriptors can be mapped into a window.</summary>
public sealed unsafe class FileKindTests : IDisposable
{
    private const ulong Page = TestFile.Page;

    private readonly FakeSlots _slots = new();
    private readonly SharedMemoryWindow _window;

    public FileKindTests()
    {
        _window = new SharedMemoryWindow(0, 16 << 20, _slots, SharedMemoryQuota.ForMachine().ForDevice());
        _window.Place(1UL << 33);
    }

    public void Dispose() => _window.Dispose();

    [Theory]
    [InlineData("/dev/zero", O_RDWR, ENODEV)]
    [InlineData("/dev/null", O_RDWR, ENODEV)]
    [InlineData("/tmp", O_RDONLY, ENODEV)]
    [InlineData("/tmp", O_PATH, EBADF)]
    [InlineData("/dev/zero", O_PATH, EBADF)]
    [InlineData("/proc/self/maps", O_RDONLY, ENXIO)]
    public void Devices_directories_paths_and_files_without_length_are_refused(string path, int flags, int error)
    {
        using var fd = new FileDescriptor(open(path, flags | O_CLOEXEC, 0));
        Assert.False(fd.IsInvalid);
        Refused(fd.Number, error);
    }

    [Fact]
    public void A_regular_file_by_its_path_only_is_refused_and_by_its_content_allowed()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(path, new byte[8192]);
            using (var only = new FileDescriptor(open(path, O_PATH | O_CLOEXEC, 0)))
                Refused(only.Number, EBADF);
            using var fd = new FileDescriptor(open(path, O_RDWR | O_CLOEXEC, 0));
            Assert.Equal(0, _window.TryMap(fd.Number, Page, 0, Page, true));
            _window.Behind.Store(8, 0x55);
            Assert.Equal(0x55, File.ReadAllBytes(path)[4096 + 8]);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public void Pipes_sockets_and_eventfds_are_refused()
    {
        int* pipe = stackalloc int[2];
        Assert.Equal(0, pipe2(pipe, O_CLOEXEC));
        using var read = new FileDescriptor(pipe[0]);
        using var write = new FileDescriptor(pipe[1]);
        Refused(pipe[0], ENODEV);
        Refused(pipe[1], ENODEV);
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        Refused((int)socket.Handle, ENODEV);
        using var notifier = new Core.Events.EventNotifier();
        Refused(notifier.Number, ENODEV);
    }

    [Fact]
    public void What_is_no_descriptor_is_refused()
    {
        Refused(-1, EBADF);
        Refused(int.MinValue, EBADF);
        Refused(0x3FFF_FFFF, EBADF);
    }

    [Fact]
    public void A_file_that_must_not_be_written_is_not()
    {
        using var file = new TestFile(1, 7);
        Assert.Equal(0, fcntl(file.Fd, F_ADD_SEALS, F_SEAL_WRITE));
        Refused(file.Fd, EPERM);
    }

    [SkippableFact]
    public void Huge_pages_are_mapped_whole_or_not_at_all()
    {
        const int huge = 2 << 20;
        using var fd = new FileDescriptor(memfd_create("window-huge", MFD_CLOEXEC | MFD_HUGETLB));
        Skip.If(fd.IsInvalid, "This host has no huge pages.");
        statx status;
        Assert.Equal(0, statx(fd.Number, "", AT_EMPTY_PATH, STATX_SIZE, &status));
        Skip.If(status.stx_blksize != huge, "This host's huge pages have another size.");
        Assert.Equal(0, ftruncate(fd.Number, 2 * huge));
        using var neighbour = new TestFile(1, 7);
        Assert.Equal(0, _window.TryMap(neighbour.Fd, 0, (2 * huge) - Page, Page, true));
        // The kernel would round up, over the neighbour.
        Assert.Equal(EEXIST, _window.TryMap(fd.Number, 0, huge, Page, true));
        Assert.Equal(EINVAL, _window.TryMap(fd.Number, 0, huge - Page, Page, true));
        Assert.Equal(EINVAL, _window.TryMap(fd.Number, Page, 0, Page, true));
        Assert.Equal(7UL, _window.Behind.Load((2 * huge) - Page));
        // Without huge pages in the pool that is refused; with some it succeeds.
        int error = _window.TryMap(fd.Number, huge, 4 * huge, Page, true);
        Assert.True(error is 0 or ENOMEM, $"errno {error}");
        if (error == 0)
            Assert.Equal(0, _window.TryUnmap(4 * huge, Page));
        Assert.Equal(7UL, _window.Behind.Load((2 * huge) - Page));
        Assert.Equal((2 * (ulong)huge) - Page, HostMap.In(_window.HostAddress, _window.Length)[0].End);
    }

    private void Refused(int fd, int error)
    {
        // Read-only, so that it is not for want of permission; but where that is what is tested.
        Assert.Equal(error, _window.TryMap(fd, 0, 0, Page, error == EPERM));
        Assert.Equal(0, _window.Count);
        Assert.Empty(_slots.Mapped);
        Assert.Equal([new HostMap(0, _window.Length, "---p", 0, "")], HostMap.In(_window.HostAddress, _window.Length));
    }
}
