namespace Vmm.Virtio.VhostUser;

/// <summary>How long a back-end may take. Whoever takes longer is cut off.</summary>
/// <param name="Request">For one message, and for the answer to one. Milliseconds.</param>
/// <param name="Stop">
/// For all queues that are asked to stop at once, since the requests in flight are completed first, and for a device's state to be taken.
/// Milliseconds.
/// </param>
/// <param name="Retry">Between two tries to connect again. Milliseconds.</param>
/// <param name="ConfigurationReads">At least so long between two reads of the configuration space. Milliseconds.</param>
internal sealed record VhostUserTimeouts(int Request = 5_000, int Stop = 60_000, int Retry = 100, int ConfigurationReads = 100)
{
    /// <summary>For a back-end that is being started, on a host that is busy, to answer for the first time.</summary>
    public int Start { get; init; } = 30_000;

    /// <summary>
    /// For all messages together that begin a connection (after the first answer), start a device, or let go of a guest's memory: with 256
    /// queues, answers that each come just in time would add up to an hour.
    /// </summary>
    public int Operation { get; init; } = 30_000;

    /// <summary>For all that is still to be said to it when the machine ends.</summary>
    public int End { get; init; } = 5_000;

    /// <summary>For the reply to one that the back-end itself asked.</summary>
    public int BackEndReply { get; init; } = 1_000;
}
