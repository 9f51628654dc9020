using Vmm.Core.Interop;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>What the back-end asks for, on the thread of its channel.</summary>
public sealed partial class VhostUserBackEnd
{
    int IBackEndRequests.MapSharedMemory(in SharedMemoryMapping mapping, int descriptor) =>
        Volatile.Read(ref _device)?.Map(mapping, descriptor) ?? LibC.ENODEV;

    int IBackEndRequests.UnmapSharedMemory(in SharedMemoryMapping mapping) =>
        Volatile.Read(ref _device)?.Unmap(mapping) ?? LibC.ENODEV;

    void IBackEndRequests.ChannelEnded(string clause)
    {
        Volatile.Write(ref _channelEnded, clause);
        _wake.Signal();
    }

    /// <summary>Tells all counters of the connection.</summary>
    internal void ReportCounters(ICounterSink sink)
    {
        Counters.Report(sink);
        DisplayCounters?.Report(sink);
        ReportControl(sink);
        // One connection's; another back-end begins anew.
        BackEndChannel? requests = Volatile.Read(ref _requests);
        sink.Add("back_end_requests", requests?.Received ?? 0);
        sink.Add("back_end_requests_refused", requests?.Refused ?? 0);
    }
}
