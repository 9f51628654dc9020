using Vmm.Core.Interop;

namespace Vmm.VhostUserBackEnd.Protocol;

/// <summary>One message that was received: its descriptors are its own until they are taken.</summary>
public sealed class Message : IDisposable
{
    internal Message(MessageHeader header, byte[] payload, List<FileDescriptor> descriptors)
    {
        Header = header;
        Payload = payload;
        Descriptors = descriptors;
    }

    public MessageHeader Header { get; }

    public FrontEndRequest Request => (FrontEndRequest)Header.Request;

    public byte[] Payload { get; }

    public int DescriptorCount => Descriptors.Count;

    public bool NeedsReply => (Header.Flags & MessageFlags.NeedReply) != 0;

    internal List<FileDescriptor> Descriptors { get; }

    /// <summary>Hands the first descriptor over to the caller; null where there is none.</summary>
    internal FileDescriptor? TakeDescriptor()
    {
        if (Descriptors.Count == 0)
            return null;
        FileDescriptor taken = Descriptors[0];
        Descriptors.RemoveAt(0);
        return taken;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (FileDescriptor descriptor in Descriptors)
            descriptor.Dispose();
        Descriptors.Clear();
    }
}
