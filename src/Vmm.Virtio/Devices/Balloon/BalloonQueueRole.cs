namespace Vmm.Virtio.Devices.Balloon;

/// <summary>What a queue of the balloon is for.</summary>
internal enum BalloonQueueRole
{
    /// <summary>Nothing: its feature was not accepted.</summary>
    None,

    /// <summary>Pages that go into the balloon.</summary>
    Inflate,

    /// <summary>Pages that come out of it.</summary>
    Deflate,

    /// <summary>What the guest says of its memory.</summary>
    Statistics,

    /// <summary>Free pages.</summary>
    Reporting,
}
