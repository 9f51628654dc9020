using System.Runtime.InteropServices;
using Vmm.Core.Locking;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// Requests of a back-end (vhost-user, "Back-end communication"), on a thread of their own, which shares no lock with requests to the
/// back-end: it may wait for our answer while we wait for its.
/// </summary>
internal sealed class BackEndChannel : IDisposable
{
    // A back-end in order is refused something now and then. One that does nothing else costs processor time for nothing.
    private const int MostRefusalsInARow = 1024;

    private readonly UnixStream _stream;
    private readonly IBackEndRequests _requests;
    private readonly ulong _protocolFeatures;
    private readonly int _replyTimeout;
    private readonly Thread _thread;
    private readonly List<FileDescriptor> _descriptors = [];
    private volatile bool _disposed;
    private long _received, _refused;
    private int _refusedInARow;

    /// <summary>Begins to serve.</summary>
    /// <param name="name">The device's, for the thread.</param>
    /// <param name="stream">Our end; owned from then on.</param>
    /// <param name="protocolFeatures">What was negotiated: other requests are refused.</param>
    /// <param name="requests">Who does what is asked.</param>
    /// <param name="replyTimeout">How long the back-end may take to read an answer, in milliseconds.</param>
    internal BackEndChannel(string name, UnixStream stream, ulong protocolFeatures, IBackEndRequests requests, int replyTimeout)
    {
        _stream = stream;
        _requests = requests;
        _protocolFeatures = protocolFeatures;
        _replyTimeout = replyTimeout;
        _thread = new Thread(Main, maxStackSize: 256 * 1024) { IsBackground = true, Name = $"req-{name}" };
        _thread.Start();
    }

    /// <summary>Requests that came.</summary>
    internal long Received => Volatile.Read(ref _received);

    /// <summary>Those of them that were refused.</summary>
    internal long Refused => Volatile.Read(ref _refused);

    /// <summary>Ends the channel and waits for its thread.</summary>
    public void Dispose()
    {
        _disposed = true;
        _stream.Shutdown();
        if (Thread.CurrentThread != _thread)
            _thread.Join();
        _stream.Dispose();
    }

    private void Main()
    {
        ThreadName.Publish();
        string clause;
        try
        {
            clause = Serve();
        }
#pragma warning disable CA1031 // A mistake of ours costs this device, not the machine.
        catch (Exception e)
        {
            clause = $"this program failed on one of its requests, which is a defect: {e.GetType().Name}: {e.Message}";
        }
#pragma warning restore CA1031
        DropDescriptors();
        if (!_disposed)
            _requests.ChannelEnded(clause);
    }

    /// <summary>Serves until the end, and says what that was.</summary>
    private string Serve()
    {
        Span<byte> head = stackalloc byte[VhostUserHeader.Length];
        byte[] room = new byte[VhostUserHeader.MaximumPayload];
        while (true)
        {
            LockWitness.RequireNone("waits for a back-end's next request");
            int error = _stream.ReceiveExactly(head, _descriptors, -1);
            if (error != 0)
                return error == LibC.ECONNRESET ? "it hung up its request channel" : $"its request channel failed: {LibC.strerror(error)}";
            VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(head);
            if (header.Size > VhostUserHeader.MaximumPayload)
                return $"its request {header.Request} announces {header.Size} bytes, and {VhostUserHeader.MaximumPayload} are the most";
            Span<byte> payload = room.AsSpan(0, (int)header.Size);
            if (!payload.IsEmpty && _stream.ReceiveExactly(payload, _descriptors, -1) != 0)
                return $"it hung up in the middle of its request {header.Request}";
            if ((header.Flags & ~VhostUserHeader.NeedReply) != VhostUserHeader.Version)
                return $"its request {header.Request} has the flags 0x{header.Flags:x}, and 0x1 or 0x9 is what a request has";
            Volatile.Write(ref _received, _received + 1);
            error = Dispatch((BackEndRequest)header.Request, payload);
            DropDescriptors();
            if (error != 0)
            {
                Volatile.Write(ref _refused, _refused + 1);
                if (++_refusedInARow >= MostRefusalsInARow)
                    return $"its last {MostRefusalsInARow} requests were all such as must be refused";
            }
            else
            {
                _refusedInARow = 0;
            }
            bool asked = (header.Flags & VhostUserHeader.NeedReply) != 0 && (_protocolFeatures & ProtocolFeatures.ReplyAck) != 0;
            if (asked && Reply(header.Request, (ulong)error) is { } problem)
                return problem;
        }
    }

    private int Dispatch(BackEndRequest request, ReadOnlySpan<byte> payload)
    {
        switch (request)
        {
            case BackEndRequest.ConfigChange when Has(ProtocolFeatures.Config):
                if (!payload.IsEmpty || _descriptors.Count > 0)
                    return LibC.EINVAL;
                _requests.ConfigurationChanged();
                return 0;
            // A mapping without a descriptor is none, and only with BACKEND_SEND_FD may one come.
            case BackEndRequest.ShmemMap when Has(ProtocolFeatures.SharedMemory | ProtocolFeatures.BackEndSendFd):
                return TryRead(payload, 1, out SharedMemoryMapping map) ? _requests.MapSharedMemory(map, _descriptors[0].Number) : LibC.EINVAL;
            case BackEndRequest.ShmemUnmap when Has(ProtocolFeatures.SharedMemory):
                return TryRead(payload, 0, out SharedMemoryMapping unmap) ? _requests.UnmapSharedMemory(unmap) : LibC.EINVAL;
            default:
                return LibC.EOPNOTSUPP;
        }
    }

    private bool Has(ulong features) => (_protocolFeatures & features) == features;

    private bool TryRead(ReadOnlySpan<byte> payload, int descriptors, out SharedMemoryMapping mapping)
    {
        mapping = default;
        if (payload.Length != Marshal.SizeOf<SharedMemoryMapping>() || _descriptors.Count != descriptors)
            return false;
        mapping = MemoryMarshal.Read<SharedMemoryMapping>(payload);
        return true;
    }

    private string? Reply(uint request, ulong result)
    {
        Span<byte> message = stackalloc byte[VhostUserHeader.Length + sizeof(ulong)];
        MemoryMarshal.Write(message, new VhostUserHeader(request, VhostUserHeader.Version | VhostUserHeader.Reply, sizeof(ulong)));
        MemoryMarshal.Write(message[VhostUserHeader.Length..], result);
        return _stream.Send(message, default, _replyTimeout) switch
        {
            0 => null,
            LibC.ETIMEDOUT => "it does not read the answers to its requests",
            int error => $"its request channel failed: {LibC.strerror(error)}",
        };
    }

    private void DropDescriptors()
    {
        foreach (FileDescriptor descriptor in _descriptors)
            descriptor.Dispose();
        _descriptors.Clear();
    }
}
