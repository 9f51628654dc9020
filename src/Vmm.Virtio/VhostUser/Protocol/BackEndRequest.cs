namespace Vmm.Virtio.VhostUser.Protocol;

/// <summary>Requests of a back-end, on the channel of SET_BACKEND_REQ_FD (vhost-user, "Back-end message types"). The others are refused.</summary>
internal enum BackEndRequest : uint
{
    ConfigChange = 2,
    ShmemMap = 9,
    ShmemUnmap = 10,
}
