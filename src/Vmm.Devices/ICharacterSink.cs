namespace Vmm.Devices;

/// <summary>Where a character device's output goes: a terminal, a file, a socket, a test.</summary>
public interface ICharacterSink
{
    /// <summary>
    /// Takes every byte, in order, before it returns; it may block its caller (a vCPU thread) for a while when the receiver is
    /// slower than the guest, and never throws for a receiver that went away.
    /// </summary>
    void Write(ReadOnlySpan<byte> data);
}
