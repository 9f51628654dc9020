using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd;

/// <summary>
/// A socket that vhost-user is spoken on, message by message and without opinion: what is sent may be as wrong as a test wants it. One thread
/// receives; any may send.
/// </summary>
public sealed class BackEndConnection : IDisposable
{
    /// <summary>A larger payload than any message has is a front-end out of step; nothing that follows would make sense.</summary>
    public const int MaximumPayload = 1 << 20;

    private readonly UnixStream _stream;
    private readonly Lock _sending = new();
    private readonly Lock _using = new();
    private int _users;
    private bool _disposed;

    public BackEndConnection(UnixStream stream) => _stream = stream;

    /// <summary>How long a front-end may take to read what is sent, in milliseconds.</summary>
    public int SendTimeout { get; set; } = 30_000;

    /// <summary>The socket's number, to poll it.</summary>
    public int Number => _stream.Number;

    /// <summary>Whether bytes, or the front-end's end, are there to be received.</summary>
    public bool HasInput
    {
        get
        {
            if (!TryEnter())
                return true;
            try
            {
                return _stream.HasInput;
            }
            finally
            {
                Leave();
            }
        }
    }

    /// <summary>Receives one message.</summary>
    /// <param name="timeoutMilliseconds">For its start and as long again for its payload; -1 for ever.</param>
    /// <param name="error">0, or an errno: ECONNRESET where the front-end has gone, ETIMEDOUT, EPROTO where it asks for too large a payload.</param>
    /// <returns>Null where <paramref name="error"/> is not 0.</returns>
    public Message? Receive(int timeoutMilliseconds, out int error)
    {
        error = ECONNRESET;
        if (!TryEnter())
            return null;
        try
        {
            return ReceiveOne(timeoutMilliseconds, out error);
        }
        finally
        {
            Leave();
        }
    }

    private Message? ReceiveOne(int timeoutMilliseconds, out int error)
    {
        var descriptors = new List<FileDescriptor>();
        Span<byte> start = stackalloc byte[MessageHeader.Length];
        error = _stream.ReceiveExactly(start, descriptors, timeoutMilliseconds);
        MessageHeader header = MessageHeader.Read(start);
        byte[] payload = [];
        if (error == 0 && header.Size > MaximumPayload)
            error = EPROTO;
        else if (error == 0)
        {
            payload = new byte[header.Size];
            error = _stream.ReceiveExactly(payload, descriptors, timeoutMilliseconds);
        }
        if (error == 0)
            return new Message(header, payload, descriptors);
        foreach (FileDescriptor descriptor in descriptors)
            descriptor.Dispose();
        return null;
    }

    /// <summary>Sends bytes as they are; the descriptors go with the first of them.</summary>
    /// <returns>0, or an errno.</returns>
    public int Send(ReadOnlySpan<byte> data, params ReadOnlySpan<int> descriptors)
    {
        if (!TryEnter())
            return EPIPE;
        try
        {
            lock (_sending)
                return _stream.Send(data, descriptors, SendTimeout);
        }
        finally
        {
            Leave();
        }
    }

    /// <summary>Sends a message with a true size, in one piece.</summary>
    /// <returns>0, or an errno.</returns>
    public int Send(uint request, uint flags, ReadOnlySpan<byte> payload, params ReadOnlySpan<int> descriptors) =>
        Send(Encode(request, flags, payload), descriptors);

    /// <summary>Answers a request as it should be answered.</summary>
    /// <returns>0, or an errno.</returns>
    public int Reply(FrontEndRequest request, ReadOnlySpan<byte> payload, params ReadOnlySpan<int> descriptors) =>
        Send((uint)request, MessageFlags.Version | MessageFlags.Reply, payload, descriptors);

    /// <summary>Answers a request with a number.</summary>
    /// <returns>0, or an errno.</returns>
    public int Reply(FrontEndRequest request, ulong value) => Reply(request, U64.ToBytes(value));

    /// <summary>A message's bytes, with a true size.</summary>
    public static byte[] Encode(uint request, uint flags, ReadOnlySpan<byte> payload) => Encode(request, flags, (uint)payload.Length, payload);

    /// <summary>A message's bytes, with whatever size the header is to say.</summary>
    public static byte[] Encode(uint request, uint flags, uint size, ReadOnlySpan<byte> payload)
    {
        var data = new byte[MessageHeader.Length + payload.Length];
        new MessageHeader(request, flags, size).Write(data);
        payload.CopyTo(data.AsSpan(MessageHeader.Length));
        return data;
    }

    /// <summary>Ends the connection: whoever waits in it, on either side, is woken.</summary>
    public void Shutdown() => _stream.Shutdown();

    /// <inheritdoc/>
    public void Dispose()
    {
        bool last;
        lock (_using)
        {
            if (_disposed)
                return;
            _disposed = true;
            last = _users == 0;
        }
        // Who is in it is woken; the number must not become another file's meanwhile.
        if (last)
            _stream.Dispose();
        else
            _stream.Shutdown();
    }

    private bool TryEnter()
    {
        lock (_using)
        {
            if (_disposed)
                return false;
            _users++;
            return true;
        }
    }

    private void Leave()
    {
        bool last;
        lock (_using)
            last = --_users == 0 && _disposed;
        if (last)
            _stream.Dispose();
    }
}
