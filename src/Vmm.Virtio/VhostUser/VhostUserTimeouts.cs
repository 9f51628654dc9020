namespace Vmm.Virtio.VhostUser;

/// <summary>How long a back-end may take. Whoever takes longer is cut off.</summary>
/// <param name="Request">For one message, and for the answer to one. Milliseconds.</param>
/// <param name="Stop">
/// For a queue to stop, since the requests in flight are completed first, and for a device's state to be taken. Milliseconds.
/// </param>
/// <param name="Retry">Between two tries to connect again. Milliseconds.</param>
/// <param name="ConfigurationReads">At least so long between two reads of the configuration space. Milliseconds.</param>
internal sealed record VhostUserTimeouts(int Request = 5_000, int Stop = 60_000, int Retry = 100, int ConfigurationReads = 100)
{
    /// <summary>For a back-end that is being started, on a host that is busy, to answer for the first time.</summary>
    public int Start { get; init; } = 30_000;

    /// <summary>For the reply to one that the back-end itself asked.</summary>
    public int BackEndReply { get; init; } = 1_000;
}
