using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Core.Interop;
using Vmm.Core.Locking;
using Vmm.Core.Sockets;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// Requests to a back-end and their answers, one at a time: of one thread, the device's worker. Every wait has a deadline, and an answer
/// is taken only if it is exactly one that the request can have.
/// </summary>
internal sealed class MainChannel : IDisposable
{
    private readonly UnixStream _stream;
    private readonly VhostUserTimeouts _timeouts;
    private readonly List<FileDescriptor> _descriptors = [];

    internal MainChannel(UnixStream stream, VhostUserTimeouts timeouts)
    {
        _stream = stream;
        _timeouts = timeouts;
    }

    /// <summary>Readable when the peer has gone, or says something unasked.</summary>
    internal int Number => _stream.Number;

    /// <summary>What was negotiated; none before.</summary>
    internal ulong ProtocolFeatures { get; set; }

    /// <summary>How many messages were sent.</summary>
    internal long Sent { get; private set; }

    /// <summary>Ends the connection, and whatever waits for the peer; any thread.</summary>
    internal void Shutdown() => _stream.Shutdown();

    public void Dispose() => _stream.Dispose();

    /// <summary>Sends a request that has no answer, or waits for its acknowledgement where that was negotiated.</summary>
    /// <param name="request">What.</param>
    /// <param name="payload">Its payload.</param>
    /// <param name="descriptors">What goes with it; stays the caller's.</param>
    /// <param name="acknowledged">Whether the outcome matters before anything else is done.</param>
    /// <exception cref="BackEndException">It says no, or nothing, or something else.</exception>
    internal void Send(FrontEndRequest request, ReadOnlySpan<byte> payload, ReadOnlySpan<int> descriptors = default, bool acknowledged = true)
    {
        bool asks = acknowledged && (ProtocolFeatures & Protocol.ProtocolFeatures.ReplyAck) != 0;
        Write(request, asks ? VhostUserHeader.NeedReply : 0, payload, descriptors);
        if (!asks)
            return;
        Unsafe.SkipInit(out ulong result);
        Read(request, MemoryMarshal.AsBytes(new Span<ulong>(ref result)), _timeouts.Request);
        if (result != 0)
            throw BackEndException.Refused($"it refused {Name(request)} (its answer is {result})");
    }

    /// <summary>The same for a payload of a fixed shape.</summary>
    internal void Send<T>(FrontEndRequest request, in T payload, ReadOnlySpan<int> descriptors = default, bool acknowledged = true) where T : unmanaged =>
        Send(request, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in payload)), descriptors, acknowledged);

    /// <summary>Asks for something of a fixed shape.</summary>
    internal TReply Ask<TReply>(FrontEndRequest request, ReadOnlySpan<byte> payload = default, int? timeout = null) where TReply : unmanaged
    {
        Write(request, 0, payload, default);
        TReply reply = default;
        Read(request, MemoryMarshal.AsBytes(new Span<TReply>(ref reply)), timeout ?? _timeouts.Request);
        return reply;
    }

    /// <summary>The same, with a payload of a fixed shape.</summary>
    internal TReply Ask<TReply, T>(FrontEndRequest request, in T payload, int? timeout = null) where TReply : unmanaged where T : unmanaged =>
        Ask<TReply>(request, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in payload)), timeout);

    /// <summary>Asks for something that may come with a descriptor.</summary>
    /// <param name="request">What.</param>
    /// <param name="payload">Its payload.</param>
    /// <param name="sent">A descriptor to send with it; below 0 for none.</param>
    /// <param name="descriptor">The one that came, the caller's; null for none.</param>
    internal TReply AskForDescriptor<TReply, T>(FrontEndRequest request, in T payload, int sent, out FileDescriptor? descriptor)
        where TReply : unmanaged where T : unmanaged
    {
        Write(request, 0, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in payload)), sent < 0 ? default : [sent]);
        TReply reply = default;
        Span<byte> bytes = MemoryMarshal.AsBytes(new Span<TReply>(ref reply));
        try
        {
            RequireSize(request, ReadHeader(request, _timeouts.Request), bytes.Length);
            ReadPayload(request, bytes);
            if (_descriptors.Count > 1)
                throw BackEndException.Broken($"its answer to {Name(request)} came with {_descriptors.Count} descriptors, and one is the most that it can have");
            descriptor = _descriptors.Count == 1 ? _descriptors[0] : null;
            _descriptors.Clear();
            return reply;
        }
        finally
        {
            DropDescriptors();
        }
    }

    /// <summary>Asks for a part of the configuration space.</summary>
    /// <exception cref="BackEndException">A refusal where the back-end has no such part.</exception>
    internal void ReadConfiguration(uint offset, Span<byte> data)
    {
        Span<byte> message = stackalloc byte[ConfigHead.Length + ConfigHead.MaximumData];
        message = message[..(ConfigHead.Length + data.Length)];
        message.Clear();
        MemoryMarshal.Write(message, new ConfigHead(offset, (uint)data.Length, 0));
        Write(FrontEndRequest.GetConfig, 0, message, default);
        try
        {
            uint size = ReadHeader(FrontEndRequest.GetConfig, _timeouts.Request);
            if (size == 0)
            {
                RequireNoDescriptors(FrontEndRequest.GetConfig);
                throw BackEndException.Refused($"it has no {data.Length} bytes of configuration at offset {offset}");
            }
            RequireSize(FrontEndRequest.GetConfig, size, message.Length);
            ReadPayload(FrontEndRequest.GetConfig, message);
            RequireNoDescriptors(FrontEndRequest.GetConfig);
            ConfigHead head = MemoryMarshal.Read<ConfigHead>(message);
            if (head.Size == 0)
                throw BackEndException.Refused($"it has no {data.Length} bytes of configuration at offset {offset}");
            if (head.Offset != offset || head.Size != (uint)data.Length)
                throw BackEndException.Broken($"it was asked for {data.Length} bytes of configuration at offset {offset}, and gave {head.Size} at offset {head.Offset}");
            message[ConfigHead.Length..].CopyTo(data);
        }
        finally
        {
            DropDescriptors();
        }
    }

    /// <summary>Says where the dirty log is, and waits for an answer of any of the shapes that back-ends give.</summary>
    internal void SetLogBase(in LogDescription log, int descriptor)
    {
        Write(FrontEndRequest.SetLogBase, 0, MemoryMarshal.AsBytes(new ReadOnlySpan<LogDescription>(in log)), [descriptor]);
        try
        {
            Span<byte> ignored = stackalloc byte[16];
            uint size = ReadHeader(FrontEndRequest.SetLogBase, _timeouts.Request);
            if (size is not (0 or 8 or 16))
                throw WrongSize(FrontEndRequest.SetLogBase, size, "0, 8 or 16");
            // What is in it, no two back-ends agree on: libvhost-user and passt repeat the log's length. Who refuses hangs up.
            ReadPayload(FrontEndRequest.SetLogBase, ignored[..(int)size]);
            RequireNoDescriptors(FrontEndRequest.SetLogBase);
        }
        finally
        {
            DropDescriptors();
        }
    }

    /// <summary>
    /// Waits until the back-end has dealt with all that was sent. Its answers are in order, so that any of them says so.
    /// </summary>
    internal void Barrier() => _ = Ask<ulong>(FrontEndRequest.GetFeatures);

    /// <summary>The peer's socket is readable although nothing was asked: it has gone, or it breaks the protocol.</summary>
    internal BackEndException Explain()
    {
        Span<byte> one = stackalloc byte[1];
        int result = _stream.Receive(one, _descriptors);
        DropDescriptors();
        return result switch
        {
            > 0 => BackEndException.Broken("it sent an answer that nobody had asked for"),
            0 => BackEndException.Broken("it hung up"),
            _ => BackEndException.Broken($"the connection failed: {LibC.strerror(-result)}"),
        };
    }

    /// <summary>A request's name as the specification has it.</summary>
    internal static string Name(FrontEndRequest request) => request switch
    {
        FrontEndRequest.SetBackEndRequestFd => "SET_BACKEND_REQ_FD",
        FrontEndRequest.NetSetMtu => "NET_SET_MTU",
        _ => Upper(request.ToString()),
    };

    private void Write(FrontEndRequest request, uint flags, ReadOnlySpan<byte> payload, ReadOnlySpan<int> descriptors)
    {
        LockWitness.RequireNone("waits for a back-end");
        // What it says now would be taken for the answer.
        if (_stream.HasInput)
            throw Explain();
        Span<byte> message = stackalloc byte[VhostUserHeader.Length + payload.Length];
        MemoryMarshal.Write(message, new VhostUserHeader((uint)request, VhostUserHeader.Version | flags, (uint)payload.Length));
        payload.CopyTo(message[VhostUserHeader.Length..]);
        // In one go: some back-ends read the header and the rest as if both were always there.
        int error = _stream.Send(message, descriptors, _timeouts.Request);
        Sent++;
        if (error != 0)
            throw Lost(request, error, "does not take");
    }

    private void Read(FrontEndRequest request, Span<byte> payload, int timeout)
    {
        try
        {
            RequireSize(request, ReadHeader(request, timeout), payload.Length);
            ReadPayload(request, payload);
            RequireNoDescriptors(request);
        }
        finally
        {
            DropDescriptors();
        }
    }

    private uint ReadHeader(FrontEndRequest request, int timeout)
    {
        Span<byte> bytes = stackalloc byte[VhostUserHeader.Length];
        int error = _stream.ReceiveExactly(bytes, _descriptors, timeout);
        if (error != 0)
            throw Lost(request, error, "does not answer");
        VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(bytes);
        if (header.Flags != (VhostUserHeader.Version | VhostUserHeader.Reply))
            throw BackEndException.Broken($"its answer to {Name(request)} has the flags 0x{header.Flags:x}, and 0x5 is what an answer has");
        if (header.Request != (uint)request)
            throw BackEndException.Broken($"it answered {Name(request)} with request number {header.Request}");
        if (header.Size > VhostUserHeader.MaximumPayload)
            throw WrongSize(request, header.Size, $"at most {VhostUserHeader.MaximumPayload}");
        return header.Size;
    }

    private void ReadPayload(FrontEndRequest request, Span<byte> payload)
    {
        int error = payload.IsEmpty ? 0 : _stream.ReceiveExactly(payload, _descriptors, _timeouts.Request);
        if (error != 0)
            throw Lost(request, error, "ended in the middle of its answer to");
    }

    private static void RequireSize(FrontEndRequest request, uint size, int wanted)
    {
        if (size != (uint)wanted)
            throw WrongSize(request, size, $"{wanted}");
    }

    private void RequireNoDescriptors(FrontEndRequest request)
    {
        if (_descriptors.Count > 0)
            throw BackEndException.Broken($"its answer to {Name(request)} came with {_descriptors.Count} descriptors, and has none");
    }

    private void DropDescriptors()
    {
        foreach (FileDescriptor descriptor in _descriptors)
            descriptor.Dispose();
        _descriptors.Clear();
    }

    private static BackEndException WrongSize(FrontEndRequest request, uint size, string wanted) =>
        BackEndException.Broken($"its answer to {Name(request)} has {size} bytes, and {wanted} is what it can have");

    private static BackEndException Lost(FrontEndRequest request, int error, string does) => error switch
    {
        LibC.ETIMEDOUT => BackEndException.Broken($"it {does} {Name(request)} in time"),
        LibC.ECONNRESET or LibC.EPIPE => BackEndException.Broken($"it hung up at {Name(request)}"),
        _ => BackEndException.Broken($"the connection failed at {Name(request)}: {LibC.strerror(error)}"),
    };

    private static string Upper(string name)
    {
        var text = new System.Text.StringBuilder();
        foreach (char letter in name)
        {
            if (char.IsUpper(letter) && text.Length > 0)
                text.Append('_');
            text.Append(char.ToUpperInvariant(letter));
        }
        return text.ToString();
    }
}
