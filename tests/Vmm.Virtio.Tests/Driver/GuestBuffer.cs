namespace Vmm.Virtio.Tests.Driver;

/// <summary>A piece of a chain that a test's driver makes available.</summary>
/// <param name="Address">Guest-physical.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Writable">The device writes it; else it reads it.</param>
public readonly record struct GuestBuffer(ulong Address, uint Length, bool Writable = false);

/// <summary>A chain that a device gave back.</summary>
/// <param name="Token">What <see cref="DriverQueue.Add(ReadOnlySpan{GuestBuffer}, bool)"/> gave.</param>
/// <param name="Written">Bytes that the device says it wrote.</param>
/// <param name="Buffers">As they were added.</param>
public readonly record struct UsedBuffer(int Token, uint Written, GuestBuffer[] Buffers);

/// <summary>What a driver and a device negotiated about queues.</summary>
public readonly record struct RingFeatures(bool Packed = false, bool EventIndex = false, bool Indirect = false, bool InOrder = false)
{
    /// <summary>All 16 combinations.</summary>
    public static IEnumerable<RingFeatures> All
    {
        get
        {
            for (int i = 0; i < 16; i++)
                yield return new RingFeatures((i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0);
        }
    }

    /// <summary>All combinations, for a [MemberData(nameof(RingFeatures.AllData), MemberType = typeof(RingFeatures))].</summary>
    public static TheoryData<int> AllData => [.. Enumerable.Range(0, 16)];

    /// <summary>Both layouts without and with everything: 0, 14 (split); 1, 15 (packed).</summary>
    public static TheoryData<int> SomeData => [0, 1, 14, 15];

    /// <summary>As feature bits, VIRTIO_F_VERSION_1 included.</summary>
    public ulong Bits => VirtioFeatures.Version1 | (Packed ? VirtioFeatures.RingPacked : 0) | (EventIndex ? VirtioFeatures.EventIndex : 0)
        | (Indirect ? VirtioFeatures.IndirectDescriptors : 0) | (InOrder ? VirtioFeatures.InOrder : 0);

    /// <summary>The combination of a number from <see cref="AllData"/>.</summary>
    public static RingFeatures Of(int number) => All.ElementAt(number);

    /// <summary>The ring features among feature bits.</summary>
    public static RingFeatures Of(ulong bits) => new(
        (bits & VirtioFeatures.RingPacked) != 0, (bits & VirtioFeatures.EventIndex) != 0,
        (bits & VirtioFeatures.IndirectDescriptors) != 0, (bits & VirtioFeatures.InOrder) != 0);
}
