namespace Vmm.Virtio.SharedMemory;

/// <summary>What happened to a shared memory region and in it. Written and read by any thread.</summary>
public sealed class SharedMemoryCounters
{
    private readonly string _prefix;
    private string[]? _names;
    private long _mappings, _mappedBytes, _maps, _unmaps, _refused, _holeReads, _holeWrites, _readOnlyWrites, _truncations;

    internal SharedMemoryCounters(byte id) => _prefix = $"shm{id}_";

    /// <summary>Mappings now.</summary>
    public long Mappings => Volatile.Read(ref _mappings);

    /// <summary>Their bytes, whole pages.</summary>
    public long MappedBytes => Volatile.Read(ref _mappedBytes);

    /// <summary>Mappings that were made.</summary>
    public long Maps => Volatile.Read(ref _maps);

    /// <summary>Mappings that were taken away.</summary>
    public long Unmaps => Volatile.Read(ref _unmaps);

    /// <summary>Requests to map or unmap that were refused.</summary>
    public long Refused => Volatile.Read(ref _refused);

    /// <summary>Reads where nothing was mapped, or not any more; they gave ones.</summary>
    public long HoleReads => Volatile.Read(ref _holeReads);

    /// <summary>Writes there; they were dropped.</summary>
    public long HoleWrites => Volatile.Read(ref _holeWrites);

    /// <summary>Writes to what is mapped read-only; they were dropped.</summary>
    public long ReadOnlyWrites => Volatile.Read(ref _readOnlyWrites);

    /// <summary>Times that a mapping lost pages because its file had become shorter.</summary>
    public long Truncations => Volatile.Read(ref _truncations);

    /// <summary>Tells all of them, named after the region: <c>shm0_hole_reads</c>.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        // Most regions are never asked.
        string[] names = _names ??=
        [
            _prefix + "mappings", _prefix + "mapped_bytes", _prefix + "maps", _prefix + "unmaps", _prefix + "refused",
            _prefix + "hole_reads", _prefix + "hole_writes", _prefix + "read_only_writes", _prefix + "truncations",
        ];
        sink.Add(names[0], Mappings);
        sink.Add(names[1], MappedBytes);
        sink.Add(names[2], Maps);
        sink.Add(names[3], Unmaps);
        sink.Add(names[4], Refused);
        sink.Add(names[5], HoleReads);
        sink.Add(names[6], HoleWrites);
        sink.Add(names[7], ReadOnlyWrites);
        sink.Add(names[8], Truncations);
    }

    internal void CountMap(ulong bytes)
    {
        Interlocked.Increment(ref _maps);
        Interlocked.Increment(ref _mappings);
        Interlocked.Add(ref _mappedBytes, (long)bytes);
    }

    internal void CountUnmap(ulong bytes)
    {
        Interlocked.Increment(ref _unmaps);
        Interlocked.Decrement(ref _mappings);
        Interlocked.Add(ref _mappedBytes, -(long)bytes);
    }

    internal void CountRefused() => Interlocked.Increment(ref _refused);

    internal void CountHoleRead() => Interlocked.Increment(ref _holeReads);

    internal void CountHoleWrite() => Interlocked.Increment(ref _holeWrites);

    internal void CountReadOnlyWrite() => Interlocked.Increment(ref _readOnlyWrites);

    internal void CountTruncation() => Interlocked.Increment(ref _truncations);
}
