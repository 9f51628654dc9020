using Vmm.Core.Locking;
using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// A shared memory region whose content others decide while the guest runs: files are mapped into it and taken out again, as a vhost-user
/// back-end asks (VHOST_USER_BACKEND_SHMEM_MAP and _UNMAP). Where nothing is mapped the guest reads ones, and what it writes is dropped.
/// </summary>
/// <remarks>
/// <para>The whole length is reserved in this process's address space from the start, and what is taken out is replaced by reservation again:
/// at no time can something else of the process get into it. This process never dereferences the window: its files are others', who can
/// truncate them at any time.</para>
/// <para>Each mapping is a memory slot of its own while the window is placed. So holes have none, and the guest's access there is an ordinary
/// exit; docs/performance.md has what that costs.</para>
/// <para>Any thread: a back-end's channel maps, a vCPU places, a device's worker unmaps all. One lock guards it all, under which nobody but the
/// memory slots is called. What is mapped is checked by <see cref="TryMap"/>; nothing throws for what a back-end or a guest asks.</para>
/// </remarks>
public sealed unsafe class SharedMemoryWindow : SharedMemoryRegion, IDisposable
{
    // Pages of hugetlbfs are mapped in whole ones, so at least the smallest of them must be possible.
    private const ulong LargePage = 2UL << 20;

    private readonly IGuestMemorySlots _slots;
    private readonly SharedMemoryQuota _quota;
    private readonly HostMapping _reservation;
    private readonly HostBackedMemory _behind;
    private readonly OrderedLock _lock = new(LockRank.SharedMemory);
    private readonly MappingTree _mappings = new();
    private ulong? _address;
    private int _vanishing;
    private bool _disposed;

    /// <summary>Reserves the window.</summary>
    /// <param name="id">Its id, unique in the device.</param>
    /// <param name="length">Bytes; a multiple of the page size, above 0.</param>
    /// <param name="slots">The guest's address space.</param>
    /// <param name="quota">How many mappings the device may have; its windows share it.</param>
    /// <exception cref="VmmException">The process's address space has no room for it.</exception>
    public SharedMemoryWindow(byte id, ulong length, IGuestMemorySlots slots, SharedMemoryQuota quota) : base(id, length)
    {
        ArgumentNullException.ThrowIfNull(slots);
        ArgumentNullException.ThrowIfNull(quota);
        if (length % MemoryLayout.PageSize != 0)
            throw new ArgumentException("A window is whole pages.", nameof(length));
        _slots = slots;
        _quota = quota;
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        // Beyond what any address space has, the alignment would wrap it around.
        bool possible = length < 1UL << 56;
        ulong alignment = length >= LargePage ? LargePage : MemoryLayout.PageSize;
        _reservation = (possible ? HostMapping.TryMapAligned((nuint)length, (nuint)alignment, PROT_NONE, flags) : null)
            ?? throw VmmException.Host(
                $"Cannot reserve {length} bytes of address space for shared memory {id}: {strerror(possible ? errno : ENOMEM)}. Use a smaller window.");
        _behind = new HostBackedMemory(this, _reservation, _reservation.Address);
    }

    /// <summary>How many mappings there are.</summary>
    public int Count
    {
        get
        {
            using (_lock.Enter())
                return _mappings.Count;
        }
    }

    /// <summary>Their bytes, whole pages.</summary>
    public ulong MappedBytes => (ulong)Counters.MappedBytes;

    /// <inheritdoc/>
    public override IBusDevice Behind => _behind;

    /// <summary>Where the window is reserved in this process; never to be dereferenced.</summary>
    internal nint HostAddress => (nint)_reservation.Address;

    /// <summary>
    /// Maps a part of a file into a free part of the window. The file is never changed, not even made longer. The descriptor stays the caller's,
    /// who may close it then.
    /// </summary>
    /// <param name="fd">A file, a memfd, or an object of the kernel's that can be mapped like one, such as a dma-buf.</param>
    /// <param name="fdOffset">Where in the file; whole pages.</param>
    /// <param name="offset">Where in the window; whole pages.</param>
    /// <param name="length">Bytes, not necessarily whole pages: the rest of the last one belongs to the mapping.</param>
    /// <param name="writable">Whether the guest may write. If not, a descriptor that is open for reading will do.</param>
    /// <returns>
    /// 0, or an errno, and nothing has changed then: EINVAL for an offset that is not whole pages, a length of 0, or what does not lie in the
    /// window; EOVERFLOW for more than a file can have; EBADF for no descriptor or one that is only a path; ENODEV for something that is not
    /// memory (a device, a pipe, a socket, a directory, an eventfd), and after the window's end; ENXIO for a file that is too short; EEXIST where something is mapped;
    /// ENOSPC when the device or the machine has as many mappings as it may; ENOMEM where the host has no room or no memory slot; EACCES or EPERM where the
    /// descriptor does not permit it; and what else mmap answers.
    /// </returns>
    public int TryMap(int fd, ulong fdOffset, ulong offset, ulong length, bool writable)
    {
        MappableFile file = default;
        int error = CheckRange(fdOffset, offset, length);
        if (error == 0)
            error = MappableFile.Check(fd, fdOffset, length, out file);
        if (error == 0)
        {
            using (_lock.Enter())
                error = Map(fd, file, fdOffset, offset, length, writable);
        }
        if (error != 0)
            Counters.CountRefused();
        return error;
    }

    /// <summary>Takes a mapping out: when this returns, the guest does not reach the file any more.</summary>
    /// <param name="offset">Where in the window it was mapped.</param>
    /// <param name="length">The bytes that it was mapped with, not more and not less.</param>
    /// <returns>0, or an errno, and nothing has changed then: ENOENT where nothing is mapped, EINVAL for anything but exactly one mapping.</returns>
    public int TryUnmap(ulong offset, ulong length)
    {
        using (_lock.Enter())
        {
            if (_mappings.AtOrBelow(offset) is { } mapping && mapping.Offset == offset && mapping.Length == length)
            {
                mapping.Hide();
                Forget(mapping);
                _mappings.Remove(mapping);
                Reserve(offset, mapping.MappedLength);
                return 0;
            }
            Counters.CountRefused();
            bool inside = length != 0 && offset < Length && length <= Length - offset;
            return inside && _mappings.Overlapping(offset, offset + length) == null ? ENOENT : EINVAL;
        }
    }

    /// <summary>Takes all mappings out.</summary>
    public void UnmapAll()
    {
        using (_lock.Enter())
        {
            if (_mappings.Count == 0)
                return;
            _mappings.ForEach(false, this, static (mapping, window) =>
            {
                mapping.Hide();
                window.Forget(mapping);
            });
            _mappings.Clear();
            Reserve(0, Length);
        }
    }

    /// <inheritdoc/>
    public override void Place(ulong? guestAddress)
    {
        using (_lock.Enter())
        {
            if (guestAddress == _address || _disposed)
                return;
            // From the far end on where they move up, so that none moves onto another that is still to move.
            bool up = guestAddress > _address;
            _address = guestAddress;
            _mappings.ForEach(up, this, static (mapping, window) => window.PlaceMapping(mapping));
        }
    }

    /// <inheritdoc/>
    public override GuestFaultAnswer Resolve()
    {
        if (Volatile.Read(ref _vanishing) == 0)
            return GuestFaultAnswer.NotHere;
        var answer = GuestFaultAnswer.Unexplained;
        ulong next = 0;
        // Without the lock while a page is looked at: a file system may take its time to answer.
        while (NextToProbe(ref next) is { } mapping)
        {
            ulong shown = mapping.Shown;
            ulong left = shown == 0 ? 0 : FaultableMemory.LengthLeft((byte*)mapping.Host, shown);
            if (left < shown && Shrink(mapping, left))
                answer = GuestFaultAnswer.Resolved;
        }
        return answer;
    }

    /// <inheritdoc/>
    public override bool GiveUp()
    {
        bool any = false;
        using (_lock.Enter())
        {
            for (ulong next = 0; _mappings.AtOrAbove(next) is { } mapping; next = mapping.End)
            {
                if (!mapping.HasSlot)
                    continue;
                // Nothing is shown of it any more, which no host refuses.
                _ = mapping.Shrink(0);
                any = true;
            }
        }
        if (any)
            Tell(SharedMemoryTrouble.GivenUp);
        return any;
    }

    /// <summary>Takes all mappings out, and gives the address space back. The window is placed nowhere any more.</summary>
    public void Dispose()
    {
        using (_lock.Enter())
        {
            if (_disposed)
                return;
            _disposed = true;
            _address = null;
            _mappings.ForEach(false, this, static (mapping, window) =>
            {
                mapping.Hide();
                window.Forget(mapping);
            });
            _mappings.Clear();
        }
        _reservation.Dispose();
    }

    internal override bool IsReadOnly(ulong offset)
    {
        using (_lock.Enter())
            return _mappings.AtOrBelow(offset) is { ReadOnly: true } mapping && offset < mapping.End;
    }

    private int CheckRange(ulong fdOffset, ulong offset, ulong length)
    {
        if (((offset | fdOffset) & (MemoryLayout.PageSize - 1)) != 0 || length == 0 || offset >= Length || length > Length - offset)
            return EINVAL;
        return fdOffset > long.MaxValue || length > long.MaxValue - fdOffset ? EOVERFLOW : 0;
    }

    private int Map(int fd, MappableFile file, ulong fdOffset, ulong offset, ulong length, bool writable)
    {
        if (_disposed)
            return ENODEV;
        // Not more than the window's length, which is far from an overflow.
        ulong mapped = (length + (file.PageSize - 1)) & ~(file.PageSize - 1);
        // The kernel would map the whole page, over whatever is beyond, or over the end of the window.
        if (mapped > Length - offset || ((fdOffset | (ulong)(HostAddress + (nint)offset)) & (file.PageSize - 1)) != 0)
            return EINVAL;
        if (_mappings.Overlapping(offset, offset + mapped) != null)
            return EEXIST;
        if (!_quota.TryTake())
            return ENOSPC;
        byte* host = _reservation.Address + offset;
        // Safe: it replaces a part of our own reservation in which nothing is mapped, as has just been checked.
        if (mmap(host, (nuint)mapped, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED, fd, (long)fdOffset) == MAP_FAILED)
        {
            int error = errno;
            // The kernel may have taken the reservation away before it failed.
            Reserve(offset, mapped);
            _quota.Release();
            return error;
        }
        // A core dump of the program should not contain what the guest shares with others.
        _ = madvise(host, (nuint)mapped, MADV_DONTDUMP);
        var mapping = new WindowMapping(_slots, (nint)host, offset, length, mapped, !writable) { CanVanish = file.CanVanish };
        if (_address is { } address && !mapping.TryPlace(address + offset))
        {
            Reserve(offset, mapped);
            _quota.Release();
            return ENOMEM;
        }
        _mappings.Add(mapping);
        if (mapping.CanVanish)
            Volatile.Write(ref _vanishing, _vanishing + 1);
        Counters.CountMap(mapped);
        return 0;
    }

    private void PlaceMapping(WindowMapping mapping)
    {
        // Where the host refuses, the guest reaches it by exits.
        if (!mapping.TryPlace(_address + mapping.Offset))
            Tell(SharedMemoryTrouble.NotDirect);
    }

    /// <summary>Books that a mapping is gone.</summary>
    private void Forget(WindowMapping mapping)
    {
        mapping.IsRemoved = true;
        if (mapping.CanVanish)
            Volatile.Write(ref _vanishing, _vanishing - 1);
        _quota.Release();
        Counters.CountUnmap(mapping.MappedLength);
    }

    private void Reserve(ulong offset, ulong length)
    {
        byte* host = _reservation.Address + offset;
        // Safe: it is a part of our own reservation that no slot shows any more. Never munmap: another thread's mmap could get into the gap.
        if (mmap(host, (nuint)length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        {
            // Only where the process is at its limit of mappings. Then the file stays in memory until the next mapping here, but nobody reaches it.
            _ = mprotect(host, (nuint)length, PROT_NONE);
        }
    }

    private WindowMapping? NextToProbe(ref ulong next)
    {
        using (_lock.Enter())
        {
            while (_mappings.AtOrAbove(next) is { } mapping)
            {
                next = mapping.End;
                if (mapping.CanVanish && mapping.HasSlot)
                    return mapping;
            }
            return null;
        }
    }

    private bool Shrink(WindowMapping mapping, ulong left)
    {
        using (_lock.Enter())
        {
            // What was looked at may not have been this mapping any more; or another vCPU was faster.
            if (mapping.IsRemoved || mapping.Shown <= left)
                return false;
            if (!mapping.Shrink(left))
                Tell(SharedMemoryTrouble.NotDirect);
        }
        Counters.CountTruncation();
        Tell(SharedMemoryTrouble.Truncated);
        return true;
    }
}
