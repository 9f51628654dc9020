using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd;

/// <summary>How a back-end request ended.</summary>
public enum ChannelResult
{
    /// <summary>The front-end answered with a number.</summary>
    Answered,

    /// <summary>No answer was asked for.</summary>
    Sent,

    /// <summary>There was no answer within the time.</summary>
    TimedOut,

    /// <summary>The front-end has closed the channel.</summary>
    Closed,

    /// <summary>The answer is not one: see the transcript.</summary>
    Malformed,

    /// <summary>There is no channel.</summary>
    NoChannel,
}

/// <summary>The answer to a back-end request.</summary>
/// <param name="Result">How it ended.</param>
/// <param name="Value">0 is success; meaningful where it was <see cref="ChannelResult.Answered"/>.</param>
public readonly record struct ChannelAnswer(ChannelResult Result, ulong Value = 0)
{
    /// <summary>Whether the front-end said that it did what was asked.</summary>
    public bool IsSuccess => Result == ChannelResult.Answered && Value == 0;

    /// <summary>Whether the front-end said that it did not.</summary>
    public bool IsRefusal => Result == ChannelResult.Answered && Value != 0;
}

/// <summary>The back-end's own channel, which SET_BACKEND_REQ_FD gave it. Any thread may ask; one request is on its way at a time.</summary>
public sealed class BackEndChannel : IDisposable
{
    private readonly BackEnd _backEnd;
    private readonly BackEndSession _session;
    private readonly Lock _asking = new();

    internal BackEndChannel(BackEndSession session, UnixStream stream)
    {
        _session = session;
        _backEnd = session.BackEnd;
        Connection = new BackEndConnection(stream);
    }

    /// <summary>For what is not a request: any bytes, any descriptors.</summary>
    public BackEndConnection Connection { get; }

    /// <summary>SHMEM_MAP. The flag NEED_REPLY is set where REPLY_ACK was negotiated and an answer is wanted.</summary>
    public ChannelAnswer Map(ShmemMapping mapping, int descriptor, bool needReply = true) =>
        Ask(BackEndRequest.SHMEM_MAP, mapping.ToBytes(), needReply, descriptor);

    /// <summary>SHMEM_UNMAP.</summary>
    public ChannelAnswer Unmap(ShmemMapping mapping, bool needReply = true) => Ask(BackEndRequest.SHMEM_UNMAP, mapping.ToBytes(), needReply);

    /// <summary>CONFIG_CHANGE_MSG.</summary>
    public ChannelAnswer ConfigChange(bool needReply = false) => Ask(BackEndRequest.CONFIG_CHANGE_MSG, [], needReply);

    /// <summary>Asks anything.</summary>
    /// <param name="request">Its number.</param>
    /// <param name="payload">Of any length.</param>
    /// <param name="needReply">Whether an answer is wanted; it is waited for only where the flag could be set.</param>
    /// <param name="descriptors">Stay the caller's.</param>
    public ChannelAnswer Ask(BackEndRequest request, ReadOnlySpan<byte> payload, bool needReply, params ReadOnlySpan<int> descriptors)
    {
        bool wait = needReply && _session.HasProtocolFeature(ProtocolFeatures.REPLY_ACK);
        uint flags = MessageFlags.Version | (wait ? MessageFlags.NeedReply : 0);
        return AskRaw((uint)request, flags, payload, wait, descriptors);
    }

    /// <summary>Asks with any number and flags, and waits for an answer or not.</summary>
    public ChannelAnswer AskRaw(uint request, uint flags, ReadOnlySpan<byte> payload, bool wait, params ReadOnlySpan<int> descriptors)
    {
        lock (_asking)
        {
            string name = ((BackEndRequest)request).ToString();
            _backEnd.Transcript.Add(TranscriptKind.BackEndRequest, name, flags, payload.ToArray(), Names(descriptors));
            int error = Connection.Send(request, flags, payload, descriptors);
            if (error != 0)
                return new ChannelAnswer(error == ETIMEDOUT ? ChannelResult.TimedOut : ChannelResult.Closed);
            return wait ? Receive(request) : new ChannelAnswer(ChannelResult.Sent);
        }
    }

    /// <summary>Waits for an answer to a request that was sent before.</summary>
    public ChannelAnswer Receive(uint request)
    {
        using Message? answer = Connection.Receive(_backEnd.ChannelTimeout, out int error);
        if (answer == null)
        {
            _backEnd.Transcript.Add(TranscriptKind.BackEndReply, strerror(error));
            return new ChannelAnswer(error == ETIMEDOUT ? ChannelResult.TimedOut : error == ECONNRESET ? ChannelResult.Closed : ChannelResult.Malformed);
        }
        _backEnd.Transcript.Add(TranscriptKind.BackEndReply, ((BackEndRequest)answer.Header.Request).ToString(), answer.Header.Flags, answer.Payload,
            Transcript.Describe(answer.Descriptors));
        if (answer.Header.Request == request && answer.Header.Flags == (MessageFlags.Version | MessageFlags.Reply)
            && answer.Payload.Length == U64.Length && answer.DescriptorCount == 0)
            return new ChannelAnswer(ChannelResult.Answered, U64.Read(answer.Payload));
        _backEnd.AddViolation($"the answer to back-end request {request} has number {answer.Header.Request}, flags {answer.Header.Flags:x}, "
            + $"{answer.Payload.Length} bytes and {answer.DescriptorCount} descriptors");
        return new ChannelAnswer(ChannelResult.Malformed);
    }

    /// <summary>Whether the front-end has closed its end, or does within the time. Only where no answer is on its way.</summary>
    public bool WaitForEnd(int timeoutMilliseconds)
    {
        lock (_asking)
        {
            using Message? message = Connection.Receive(timeoutMilliseconds, out int error);
            return message == null && error != ETIMEDOUT;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Connection.Dispose();

    private static string[] Names(ReadOnlySpan<int> descriptors)
    {
        var names = new string[descriptors.Length];
        for (int i = 0; i < names.Length; i++)
            names[i] = new FileInfo($"/proc/self/fd/{descriptors[i]}").LinkTarget ?? "?";
        return names;
    }
}
