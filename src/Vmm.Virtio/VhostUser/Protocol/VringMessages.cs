using System.Runtime.InteropServices;

namespace Vmm.Virtio.VhostUser.Protocol;

/// <summary>"A vring state description": 8 bytes.</summary>
/// <param name="Index">Which queue.</param>
/// <param name="Number">Its size, its base, or whether it is enabled.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct VringState(uint Index, uint Number);

/// <summary>"A vring address description": 40 bytes. Addresses are the front-end's, <paramref name="Log"/> is the guest's.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct VringAddress(uint Index, uint Flags, ulong Descriptor, ulong Used, ulong Available, ulong Log)
{
    /// <summary>VHOST_VRING_F_LOG: writes to the used ring are logged.</summary>
    public const uint LogUsed = 1;
}

/// <summary>The u64 of SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR.</summary>
internal static class VringDescriptor
{
    /// <summary>Bit 8: no descriptor comes with it.</summary>
    public const ulong NoDescriptor = 1UL << 8;
}
