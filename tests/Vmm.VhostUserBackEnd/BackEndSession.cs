using System.Globalization;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd;

#pragma warning disable CA1001 // The events never make a wait handle, so there is nothing to dispose of; tests look at sessions that have ended.
/// <summary>One connection of a front-end's: what was negotiated on it, the memory and the queues that it gave.</summary>
public sealed partial class BackEndSession
#pragma warning restore CA1001
{
    private readonly Lock _memoryGate = new();
    private readonly ManualResetEventSlim _ended = new();
    private readonly ManualResetEventSlim _hurry = new();
    private readonly Vring[] _vrings;
    private MemoryTable _memory = MemoryTable.Empty;
    private BackEndChannel? _channel;
    private DirtyLog? _log;
    private Thread? _stateThread;
    private ulong _stateResult;
    private bool _closing;

    internal BackEndSession(BackEnd backEnd, UnixStream stream)
    {
        BackEnd = backEnd;
        Connection = new BackEndConnection(stream);
        _vrings = new Vring[backEnd.Device.QueueCount];
        for (int i = 0; i < _vrings.Length; i++)
            _vrings[i] = new Vring(this, i);
    }

    public BackEnd BackEnd { get; }

    /// <summary>The main channel, for what no fault describes.</summary>
    public BackEndConnection Connection { get; }

    /// <summary>The back-end's channel; null until SET_BACKEND_REQ_FD.</summary>
    public BackEndChannel? Channel => Volatile.Read(ref _channel);

    public IReadOnlyList<Vring> Vrings => _vrings;

    /// <summary>What SET_FEATURES said last.</summary>
    public ulong AckedFeatures { get; private set; }

    /// <summary>What SET_PROTOCOL_FEATURES said.</summary>
    public ProtocolFeatures AckedProtocolFeatures { get; private set; }

    /// <summary>The memory as it is; pointers into it are only for who holds it.</summary>
    public MemoryTable Memory
    {
        get
        {
            lock (_memoryGate)
                return _memory;
        }
    }

    /// <summary>Where writes to guest memory are logged; null where they are not.</summary>
    public DirtyLog? Log => Volatile.Read(ref _log);

    /// <summary>The buffer of SET_INFLIGHT_FD; null without.</summary>
    public InflightRegion? Inflight { get; private set; }

    public bool HasEnded => _ended.IsSet;

    /// <summary>Whether <see cref="Disconnect"/> was called, or the connection has ended: nothing is to be done for the guest any more.</summary>
    public bool IsGoing => _hurry.IsSet;

    public bool HasFeature(ulong mask) => (AckedFeatures & mask) == mask;

    public bool HasProtocolFeature(ProtocolFeatures mask) => (AckedProtocolFeatures & mask) == mask;

    /// <summary>Waits for the end of the connection; false where it has not come within the time.</summary>
    public bool WaitForEnd(int timeoutMilliseconds = 10_000) => _ended.Wait(timeoutMilliseconds);

    /// <summary>Ends both channels as a process that is killed would: what was taken from the rings is not given back.</summary>
    public void Disconnect()
    {
        _hurry.Set();
        foreach (Vring vring in _vrings)
            vring.AbandonSoon();
        Connection.Shutdown();
        Channel?.Connection.Shutdown();
    }

    /// <summary>Sleeps, but not beyond the connection.</summary>
    public void Sleep(int milliseconds) => _hurry.Wait(milliseconds);

    internal void Run()
    {
        BackEnd.Transcript.Add(TranscriptKind.Note, "connected");
        BackEnd.Device.Attached(this);
        int error;
        while (true)
        {
            using Message? message = Connection.Receive(-1, out error);
            if (message == null)
                break;
            BackEnd.Transcript.Add(TranscriptKind.Request, Name(message.Header.Request), message.Header.Flags, message.Payload, Transcript.Describe(message.Descriptors));
            Check(message);
            Answer(message);
            if (_closing)
                break;
        }
        if (error is not 0 and not ECONNRESET and not EPIPE)
            BackEnd.AddViolation($"the connection broke: {strerror(error)}");
        End();
    }

    internal MemoryTable HoldMemory()
    {
        lock (_memoryGate)
        {
            _memory.Hold();
            return _memory;
        }
    }

    private static string Name(uint request) =>
        Enum.IsDefined((FrontEndRequest)request) ? ((FrontEndRequest)request).ToString() : request.ToString(CultureInfo.InvariantCulture);

    private void End()
    {
        Disconnect();
        foreach (Vring vring in _vrings)
            vring.Close();
        BackEnd.Device.Detached(this);
        _stateThread?.Join();
        Channel?.Dispose();
        Connection.Dispose();
        ReplaceMemory([]);
        Log?.Close();
        Inflight?.Close();
        BackEnd.Transcript.Add(TranscriptKind.Note, "disconnected");
        _ended.Set();
    }

    /// <summary>Regions that are in the new table stay mapped; the others go when nobody holds them any more.</summary>
    private void ReplaceMemory(List<GuestRegion> regions)
    {
        IReadOnlyList<GuestRegion> old;
        lock (_memoryGate)
        {
            old = _memory.Regions;
            _memory = MemoryTable.Of(regions);
        }
        foreach (GuestRegion region in old)
        {
            if (!regions.Contains(region))
                region.Close();
        }
    }

    private void Answer(Message message)
    {
        FrontEndRequest request = message.Request;
        bool replyIsDue = HasOwnReply(request) || WantsAck(message);
        if (BackEnd.FaultFor(this, request, replyIsDue) is { } fault)
        {
            BackEnd.Transcript.Add(TranscriptKind.Note, $"fault: {fault}");
            AnswerWrongly(message, fault);
            return;
        }
        Reply? reply = Serve(message);
        if (reply != null)
            Send(reply);
    }

    private void AnswerWrongly(Message message, Fault fault)
    {
        switch (fault.Kind)
        {
            case FaultKind.Silence:
                return;
            case FaultKind.Close:
                _closing = true;
                return;
            case FaultKind.Act:
                fault.Action?.Invoke(this, message);
                return;
            case FaultKind.Nack:
                Send(new Reply(message.Request, U64.ToBytes(fault.Value)));
                return;
            case FaultKind.Before:
                fault.Action?.Invoke(this, message);
                break;
        }
        Reply? reply = Serve(message);
        if (fault.Kind == FaultKind.Unsolicited)
            reply ??= new Reply(message.Request, U64.ToBytes(0));
        if (reply == null)
        {
            _closing = fault.Kind == FaultKind.CloseAfter;
            return;
        }
        uint request = (uint)reply.Request;
        uint flags = MessageFlags.Version | MessageFlags.Reply;
        uint? size = null;
        switch (fault.Kind)
        {
            case FaultKind.WrongId:
                request = fault.Value == 0 ? request + 1 : (uint)fault.Value;
                break;
            case FaultKind.NoReplyFlag:
                flags = MessageFlags.Version;
                break;
            case FaultKind.Version:
                flags = (uint)(fault.Value & MessageFlags.VersionMask) | MessageFlags.Reply;
                break;
            case FaultKind.ExtraFlags:
                flags |= (uint)fault.Value;
                break;
            case FaultKind.Size:
                byte[] resized = reply.Payload;
                Array.Resize(ref resized, (int)fault.Value);
                reply.Payload = resized;
                break;
            case FaultKind.ClaimedSize:
                size = (uint)fault.Value;
                break;
            case FaultKind.ExtraDescriptors:
                for (ulong i = 0; i < fault.Value; i++)
                    reply.Descriptors.Add(EventFd.Create());
                break;
            case FaultKind.MissingDescriptors:
                reply.DisposeDescriptors();
                break;
            case FaultKind.Payload:
                reply.Payload = fault.Bytes ?? [];
                break;
            case FaultKind.Slow:
                Sleep((int)fault.Value);
                break;
            case FaultKind.CloseAfter:
                _closing = true;
                break;
        }
        byte[] data = BackEndConnection.Encode(request, flags, size ?? (uint)reply.Payload.Length, reply.Payload);
        int length = fault.Kind == FaultKind.Part ? (int)Math.Min(fault.Value, (ulong)data.Length) : data.Length;
        SendBytes(reply, data.AsSpan(0, length), flags);
        if (fault.Kind == FaultKind.Twice)
            SendBytes(reply, data, flags);
        reply.DisposeDescriptors();
    }

    private void Send(Reply reply)
    {
        uint flags = MessageFlags.Version | MessageFlags.Reply;
        SendBytes(reply, BackEndConnection.Encode((uint)reply.Request, flags, reply.Payload), flags);
        reply.DisposeDescriptors();
    }

    private void SendBytes(Reply reply, ReadOnlySpan<byte> data, uint flags)
    {
        BackEnd.Transcript.Add(TranscriptKind.Reply, reply.Request.ToString(), flags, reply.Payload, Transcript.Describe(reply.Descriptors));
        Span<int> numbers = stackalloc int[reply.Descriptors.Count];
        for (int i = 0; i < numbers.Length; i++)
            numbers[i] = reply.Descriptors[i].Number;
        if (data.Length > 0 && Connection.Send(data, numbers) != 0)
            _closing = true;
    }

    /// <summary>A reply on its way; the descriptors are its own.</summary>
    private sealed class Reply
    {
        internal Reply(FrontEndRequest request, byte[] payload)
        {
            Request = request;
            Payload = payload;
        }

        internal FrontEndRequest Request { get; }

        internal byte[] Payload { get; set; }

        internal List<FileDescriptor> Descriptors { get; } = [];

        internal void DisposeDescriptors()
        {
            foreach (FileDescriptor descriptor in Descriptors)
                descriptor.Dispose();
            Descriptors.Clear();
        }
    }
}
