using System.Runtime.InteropServices;

namespace Vmm.Virtio.VhostUser.Protocol;

/// <summary>"Virtio device config space": its head of 12 bytes, before the data.</summary>
/// <param name="Offset">The first byte in the configuration space.</param>
/// <param name="Size">Bytes of data; 0 in an answer is an error.</param>
/// <param name="Flags">0 for a driver's write, 1 for one of a migration.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct ConfigHead(uint Offset, uint Size, uint Flags)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 12;

    /// <summary>VHOST_USER_MAX_CONFIG_SIZE: the most data that one message carries.</summary>
    public const int MaximumData = 256;
}

/// <summary>"Device state transfer parameters": 8 bytes.</summary>
/// <param name="Direction">0 to save, 1 to load.</param>
/// <param name="Phase">0: the device is stopped.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct DeviceStateTransfer(uint Direction, uint Phase)
{
    /// <summary>From the back-end.</summary>
    public const uint Save = 0;

    /// <summary>To the back-end.</summary>
    public const uint Load = 1;
}
