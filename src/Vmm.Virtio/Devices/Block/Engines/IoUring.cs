using Vmm.Core.Events;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Block.Engines;

/// <summary>
/// An io_uring(7) instance: its rings mapped, its descriptors registered, an eventfd signalled for what ends outside of
/// <see cref="Submit"/>. For the thread that made it.
/// </summary>
internal sealed unsafe class IoUring : IDisposable
{
    private const uint RequiredFeatures = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS;

    // The best first; an older kernel refuses flags that it does not know.
    private static readonly uint[] _setups =
    [
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER,
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,
        0,
    ];

    private readonly FileDescriptor _file;
    private readonly HostMapping _rings;
    private readonly HostMapping _entries;
    private readonly EventNotifier? _ended;
    private readonly uint* _submissionHead;
    private readonly uint* _submissionTail;
    private readonly uint _submissionMask;
    private readonly uint* _completionHead;
    private readonly uint* _completionTail;
    private readonly uint* _completionFlags;
    private readonly uint _completionMask;
    private readonly io_uring_sqe* _submissions;
    private readonly io_uring_cqe* _completions;
    private uint _tail;
    private uint _submitted;

    private IoUring(FileDescriptor file, HostMapping rings, HostMapping entries, EventNotifier? ended, in io_uring_params parameters)
    {
        (_file, _rings, _entries, _ended) = (file, rings, entries, ended);
        byte* ring = rings.Address;
        _submissionHead = (uint*)(ring + parameters.sq_off.head);
        _submissionTail = (uint*)(ring + parameters.sq_off.tail);
        _submissionMask = *(uint*)(ring + parameters.sq_off.ring_mask);
        _completionHead = (uint*)(ring + parameters.cq_off.head);
        _completionTail = (uint*)(ring + parameters.cq_off.tail);
        _completionMask = *(uint*)(ring + parameters.cq_off.ring_mask);
        _completionFlags = (uint*)(ring + parameters.cq_off.flags);
        _completions = (io_uring_cqe*)(ring + parameters.cq_off.cqes);
        _submissions = (io_uring_sqe*)entries.Address;
        // Entry i of the ring always stands at place i: the array of indices is written once.
        uint* array = (uint*)(ring + parameters.sq_off.array);
        for (uint i = 0; i < parameters.sq_entries; i++)
            array[i] = i;
        _tail = _submitted = *_submissionTail;
    }

    /// <summary>Readable when something ended outside of <see cref="Submit"/>.</summary>
    public int EventDescriptor => _ended?.Number ?? -1;

    /// <summary>Makes one; null, with what the kernel said, where it cannot be had.</summary>
    /// <param name="entries">The most operations in flight.</param>
    /// <param name="descriptors">Descriptors that operations name by their place in this list.</param>
    /// <param name="problem">Why not, as a clause.</param>
    public static IoUring? TryCreate(uint entries, ReadOnlySpan<int> descriptors, out string? problem)
    {
        io_uring_params parameters = default;
        long fd = -1;
        foreach (uint flags in _setups)
        {
            parameters = new io_uring_params { flags = flags };
            fd = syscall(SYS_io_uring_setup, entries, (nuint)(&parameters), 0, 0, 0, 0);
            if (fd >= 0 || errno != EINVAL)
                break;
        }
        if (fd < 0)
        {
            problem = Refusal(errno);
            return null;
        }
        var file = new FileDescriptor((int)fd);
        HostMapping? rings = null;
        HostMapping? submissions = null;
        EventNotifier? ended = null;
        try
        {
            if ((parameters.features & RequiredFeatures) != RequiredFeatures)
            {
                problem = "the kernel's io_uring is too old";
                return null;
            }
            nuint ringBytes = Math.Max(
                parameters.sq_off.array + (parameters.sq_entries * sizeof(uint)),
                parameters.cq_off.cqes + (parameters.cq_entries * (uint)sizeof(io_uring_cqe)));
            rings = HostMapping.TryMap(ringBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.Number, (long)IORING_OFF_SQ_RING);
            submissions = rings == null ? null : HostMapping.TryMap(
                parameters.sq_entries * (nuint)sizeof(io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.Number, (long)IORING_OFF_SQES);
            if (rings == null || submissions == null)
            {
                problem = $"its rings cannot be mapped: {strerror(errno)} (errno {errno})";
                return null;
            }
            if (!HasOperations(file.Number))
            {
                problem = "the kernel's io_uring lacks operations on files";
                return null;
            }
            if (!descriptors.IsEmpty)
            {
                ended = new EventNotifier();
                int number = ended.Number;
                fixed (int* list = descriptors)
                {
                    if (Register(file.Number, IORING_REGISTER_FILES, list, (uint)descriptors.Length) < 0 ||
                        Register(file.Number, IORING_REGISTER_EVENTFD, &number, 1) < 0)
                    {
                        problem = $"its descriptors cannot be registered: {strerror(errno)} (errno {errno})";
                        return null;
                    }
                }
            }
            problem = null;
            var ring = new IoUring(file, rings, submissions, ended, parameters);
            (rings, submissions, ended, file) = (null, null, null, null);
            return ring;
        }
        finally
        {
            rings?.Dispose();
            submissions?.Dispose();
            file?.Dispose();
            ended?.Dispose();
        }
    }

    /// <summary>The next entry to fill, emptied. There is one: no more are in flight than the ring was made for.</summary>
    public io_uring_sqe* Next()
    {
        io_uring_sqe* entry = _submissions + (_tail++ & _submissionMask);
        *entry = default;
        return entry;
    }

    /// <summary>Gives what was filled to the kernel, in one call; false when it took only a part for now.</summary>
    public bool Submit()
    {
        if (_tail == _submitted)
            return true;
        // What ends during the call is seen when it returns: the event would only wake the loop for nothing.
        Volatile.Write(ref *_completionFlags, IORING_CQ_EVENTFD_DISABLED);
        Volatile.Write(ref *_submissionTail, _tail);
        bool all = true;
        while (_submitted != _tail)
        {
            long taken = Enter(_tail - _submitted, 0, 0);
            if (taken < 0 && errno == EINTR)
                continue;
            _submitted = Volatile.Read(ref *_submissionHead);
            if (taken <= 0)
            {
                int error = taken < 0 ? errno : EAGAIN;
                if (error is not (EAGAIN or EBUSY or ENOMEM))
                    throw new InvalidOperationException($"io_uring_enter: {strerror(error)} (errno {error})");
                all = false;
                break;
            }
        }
        Volatile.Write(ref *_completionFlags, 0);
        // What ends from here on signals; the caller looks at the ring once more now, and once a little later: another processor may
        // have read the flag before this and show its entry after it.
        Interlocked.MemoryBarrier();
        return all;
    }

    /// <summary>Takes what has ended.</summary>
    public bool TryComplete(out ulong token, out int result)
    {
        uint head = *_completionHead;
        if (head == Volatile.Read(ref *_completionTail))
        {
            (token, result) = (0, 0);
            return false;
        }
        io_uring_cqe* entry = _completions + (head & _completionMask);
        (token, result) = (entry->user_data, entry->res);
        Volatile.Write(ref *_completionHead, head + 1);
        return true;
    }

    /// <summary>Waits until something has ended.</summary>
    public void Wait()
    {
        while (Volatile.Read(ref *_completionTail) == *_completionHead)
        {
            if (Enter(0, 1, IORING_ENTER_GETEVENTS) < 0 && errno is not (EINTR or EAGAIN or EBUSY))
                throw new InvalidOperationException($"io_uring_enter: {strerror(errno)} (errno {errno})");
        }
    }

    /// <summary>Nothing is in flight. On the thread that made it.</summary>
    public void Dispose()
    {
        // The kernel takes a closed ring apart later; until then it would hold the files, and with them the image's lock.
        if (_ended != null)
            _ = Register(_file.Number, IORING_UNREGISTER_FILES, null, 0);
        _rings.Dispose();
        _entries.Dispose();
        _file.Dispose();
        _ended?.Dispose();
    }

    private long Enter(uint submit, uint complete, uint flags) =>
        syscall(SYS_io_uring_enter, (nuint)_file.Number, submit, complete, flags, 0, 0);

    private static long Register(int ring, uint what, void* argument, uint count) =>
        syscall(SYS_io_uring_register, (nuint)ring, what, (nuint)argument, count, 0, 0);

    private static bool HasOperations(int ring)
    {
        const int most = 64;
        byte* buffer = stackalloc byte[sizeof(io_uring_probe) + (most * sizeof(io_uring_probe_op))];
        new Span<byte>(buffer, sizeof(io_uring_probe) + (most * sizeof(io_uring_probe_op))).Clear();
        if (Register(ring, IORING_REGISTER_PROBE, buffer, most) < 0)
            return false;
        var probe = (io_uring_probe*)buffer;
        var operations = (io_uring_probe_op*)(buffer + sizeof(io_uring_probe));
        foreach (byte needed in (ReadOnlySpan<byte>)[IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE])
        {
            if (needed > probe->last_op || (operations[needed].flags & IO_URING_OP_SUPPORTED) == 0)
                return false;
        }
        return true;
    }

    private static string Refusal(int error) => error switch
    {
        ENOSYS => "this kernel has no io_uring",
        EPERM or EACCES => "io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a seccomp filter)",
        ENOMEM => "there is no memory for io_uring (ulimit -l)",
        _ => $"io_uring_setup: {strerror(error)} (errno {error})",
    };
}
