using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Net;

/// <summary>
/// What is at the other end of a network card's cable. Opened once by the machine; it outlives the device, of which there is one for
/// each life of the guest.
/// </summary>
public interface INetBackend : IDisposable
{
    /// <summary>One for each pair of a receive and a transmit queue; at least one. Constant.</summary>
    IReadOnlyList<INetPort> Ports { get; }

    /// <summary>Which of the offloads in <see cref="NetFeatures"/> it can do, both those of the host and of the guest. Constant.</summary>
    ulong Offloads { get; }

    /// <summary>The largest IP packet that it carries unsegmented, in bytes: 68 to 65535.</summary>
    ushort Mtu { get; }

    /// <summary>The address of a guest that was not given one; the same for all its lives.</summary>
    MacAddress DefaultMac { get; }

    /// <summary>
    /// Says what the guest handles, a consistent set of <see cref="NetFeatures.GuestOffloads"/>: nothing else is to be received, save what
    /// was on its way. Any thread.
    /// </summary>
    /// <returns>False when it was refused, and nothing changed.</returns>
    bool TrySetGuestOffloads(ulong offloads);

    /// <summary>Whether the cable is plugged in, as the other end sees it too. Outlives a guest's reboot. Any thread.</summary>
    bool Carrier { get; set; }
}

/// <summary>
/// One queue of a back-end. Each frame has a header of 12 bytes before it (VIRTIO 1.3 §5.1.6). Sending and receiving belong to one
/// event loop's thread.
/// </summary>
public interface INetPort
{
    /// <summary>
    /// What an event loop watches: it becomes readable when frames come, and writable when <see cref="Send"/> may be tried again.
    /// </summary>
    int Descriptor { get; }

    /// <summary>
    /// Takes a frame off the queue, its header first; num_buffers is left to the caller. What does not fit is lost.
    /// </summary>
    /// <param name="buffers">Where to, 1024 segments at most.</param>
    /// <returns>Bytes written, or a negated error number: EAGAIN when there is no frame; EFAULT when a buffer could not be written and the frame is lost.</returns>
    nint Receive(ReadOnlySpan<GuestSegment> buffers);

    /// <summary>Sends a frame, its header first.</summary>
    /// <param name="frame">What, 1024 segments at most.</param>
    /// <returns>Bytes, or a negated error number: EAGAIN when it is full; any other means that this frame will not be sent.</returns>
    nint Send(ReadOnlySpan<GuestSegment> frame);

    /// <summary>Has frames received by this queue, or by the others only. Any thread.</summary>
    /// <returns>False when it was refused, and nothing changed.</returns>
    bool TrySetEnabled(bool enabled);
}
