using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// What a back-end may ask for by itself. Called by the thread of its channel, which must not wait for anything that the device's worker
/// does: the worker may be waiting for just this back-end.
/// </summary>
internal interface IBackEndRequests
{
    /// <summary>The configuration space changed, and should be read again some time.</summary>
    void ConfigurationChanged();

    /// <summary>A file is to be seen in a shared memory region.</summary>
    /// <param name="mapping">Where; nothing of it has been checked.</param>
    /// <param name="descriptor">Of the file; stays the caller's.</param>
    /// <returns>0, or an errno.</returns>
    int MapSharedMemory(in SharedMemoryMapping mapping, int descriptor);

    /// <summary>It is to be seen no more.</summary>
    /// <returns>0, or an errno.</returns>
    int UnmapSharedMemory(in SharedMemoryMapping mapping);

    /// <summary>The channel has ended: the back-end hung up or broke the protocol. Not called for <see cref="BackEndChannel.Dispose"/>.</summary>
    /// <param name="clause">What it did.</param>
    void ChannelEnded(string clause);
}
