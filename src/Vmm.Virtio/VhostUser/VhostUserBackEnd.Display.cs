using Vmm.Core;
using Vmm.Core.Sockets;
using Vmm.Virtio.VhostUser.Gpu;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>The display of a graphics card, which the back-end gets a connection to before it serves its first queue (GPU_SET_SOCKET).</summary>
public sealed partial class VhostUserBackEnd
{
    private HeadlessDisplay? _display;

    /// <summary>What happened at the display; null where there is none.</summary>
    public DisplayCounters? DisplayCounters => _display?.Counters;

    private void TellDisplay(MainChannel channel)
    {
        // Once on each connection: a back-end that has one takes no other. One that lost it, by its fault, gets another with the next driver.
        if (_display is not { IsConnected: false } display)
            return;
        (UnixStream Ours, UnixStream Theirs) pair;
        try
        {
            pair = UnixStream.CreatePair();
        }
        catch (VmmException e)
        {
            throw BackEndException.Refused(e.Message);
        }
        using (pair.Theirs)
        {
            try
            {
                channel.Send(FrontEndRequest.GpuSetSocket, default, [pair.Theirs.Number], acknowledged: false);
            }
            catch
            {
                pair.Ours.Dispose();
                throw;
            }
        }
        display.Connect(pair.Ours);
    }
}
