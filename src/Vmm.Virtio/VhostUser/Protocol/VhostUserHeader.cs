using System.Runtime.InteropServices;

namespace Vmm.Virtio.VhostUser.Protocol;

/// <summary>The header of every message, in native byte order: 12 bytes (vhost-user, "Header").</summary>
/// <param name="Request">What is asked or answered.</param>
/// <param name="Flags">Version, REPLY, NEED_REPLY.</param>
/// <param name="Size">Bytes of payload that follow.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct VhostUserHeader(uint Request, uint Flags, uint Size)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 12;

    /// <summary>
    /// The largest payload that is taken: more than any message of the specification has. A peer that announces more is cut off before
    /// anything is allocated for it.
    /// </summary>
    public const uint MaximumPayload = 4096;

    /// <summary>Bits 0 and 1 of the flags: the protocol's version.</summary>
    public const uint Version = 1;

    /// <summary>Bit 2: an answer.</summary>
    public const uint Reply = 4;

    /// <summary>Bit 3: the sender wants an acknowledgement (REPLY_ACK).</summary>
    public const uint NeedReply = 8;

    /// <summary>All that the version takes of the flags.</summary>
    public const uint VersionMask = 3;
}
