using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd;

/// <summary>What a faulty back-end does with a request.</summary>
public enum FaultKind
{
    /// <summary>The reply has another request's number (<see cref="Fault.Value"/>; the next one where that is 0).</summary>
    WrongId,

    /// <summary>The reply lacks the REPLY flag.</summary>
    NoReplyFlag,

    /// <summary>The reply has version <see cref="Fault.Value"/> (0, 2 or 3).</summary>
    Version,

    /// <summary>The reply has these flags in addition.</summary>
    ExtraFlags,

    /// <summary>The reply's payload is cut or padded with zeros to <see cref="Fault.Value"/> bytes, and its header says so.</summary>
    Size,

    /// <summary>The reply's header claims <see cref="Fault.Value"/> bytes; what comes is what should have.</summary>
    ClaimedSize,

    /// <summary>No reply; nothing is done.</summary>
    Silence,

    /// <summary>The first <see cref="Fault.Value"/> bytes of the reply, header included, and then nothing.</summary>
    Part,

    /// <summary>So many descriptors come with the reply in addition.</summary>
    ExtraDescriptors,

    /// <summary>The reply comes without its descriptors.</summary>
    MissingDescriptors,

    /// <summary>The request is refused with the number <see cref="Fault.Value"/>.</summary>
    Nack,

    /// <summary>The request is served and answered with this payload.</summary>
    Payload,

    /// <summary>The reply comes twice.</summary>
    Twice,

    /// <summary>A reply to a request that wants none.</summary>
    Unsolicited,

    /// <summary>The connection is closed in place of a reply.</summary>
    Close,

    /// <summary>The connection is closed behind the reply.</summary>
    CloseAfter,

    /// <summary>The reply comes after <see cref="Fault.Value"/> milliseconds.</summary>
    Slow,

    /// <summary>Whatever <see cref="Fault.Action"/> does, in place of serving the request.</summary>
    Act,

    /// <summary>Whatever <see cref="Fault.Action"/> does, before the request is served as it should be.</summary>
    Before,
}

/// <summary>A fault: data, so that a scenario can be named, printed and repeated.</summary>
public sealed record Fault(FaultKind Kind, ulong Value = 0)
{
    public static Fault WrongId { get; } = new(FaultKind.WrongId);

    public static Fault NoReplyFlag { get; } = new(FaultKind.NoReplyFlag);

    public static Fault Silence { get; } = new(FaultKind.Silence);

    public static Fault MissingDescriptors { get; } = new(FaultKind.MissingDescriptors);

    public static Fault Twice { get; } = new(FaultKind.Twice);

    public static Fault Unsolicited { get; } = new(FaultKind.Unsolicited);

    public static Fault Close { get; } = new(FaultKind.Close);

    public static Fault CloseAfter { get; } = new(FaultKind.CloseAfter);

    /// <summary>The payload of <see cref="FaultKind.Payload"/>.</summary>
    public byte[]? Bytes { get; init; }

    /// <summary>What <see cref="FaultKind.Act"/> does, which answers itself where it wants to, or <see cref="FaultKind.Before"/>.</summary>
    public Action<BackEndSession, Message>? Action { get; init; }

    public static Fault Version(uint version) => new(FaultKind.Version, version);

    public static Fault ExtraFlags(uint flags) => new(FaultKind.ExtraFlags, flags);

    public static Fault Size(int bytes) => new(FaultKind.Size, (ulong)bytes);

    public static Fault ClaimedSize(uint bytes) => new(FaultKind.ClaimedSize, bytes);

    public static Fault Part(int bytes) => new(FaultKind.Part, (ulong)bytes);

    public static Fault ExtraDescriptors(int count) => new(FaultKind.ExtraDescriptors, (ulong)count);

    public static Fault Nack(ulong value = 1) => new(FaultKind.Nack, value);

    public static Fault Slow(int milliseconds) => new(FaultKind.Slow, (ulong)milliseconds);

    public static Fault Answer(ulong value) => new(FaultKind.Payload) { Bytes = U64.ToBytes(value) };

    public static Fault Answer(byte[] payload) => new(FaultKind.Payload) { Bytes = payload };

    public static Fault Before(Action<BackEndSession, Message> action) => new(FaultKind.Before) { Action = action };

    public static Fault Act(Action<BackEndSession, Message> action) => new(FaultKind.Act) { Action = action };

    /// <summary>Whether there is nothing to get wrong where the request wants no reply.</summary>
    internal bool SpoilsReply => Kind is not (FaultKind.Silence or FaultKind.Unsolicited or FaultKind.Close or FaultKind.CloseAfter or FaultKind.Slow or FaultKind.Act or FaultKind.Before);

    /// <inheritdoc/>
    public override string ToString() => Bytes is { } bytes ? $"{Kind} {Convert.ToHexStringLower(bytes)}" : $"{Kind} {Value}";
}

/// <summary>A fault that waits for its request.</summary>
public sealed class PlannedFault
{
    private readonly int _first;
    private readonly int _times;
    private int _seen;
    private int _applied;

    internal PlannedFault(FrontEndRequest request, Fault fault, int first, int times)
    {
        Request = request;
        Fault = fault;
        _first = first;
        _times = times;
    }

    public FrontEndRequest Request { get; }

    public Fault Fault { get; }

    /// <summary>How many requests it was applied to.</summary>
    public int Applied => Volatile.Read(ref _applied);

    /// <summary>The connection that it was applied to first; null before.</summary>
    public BackEndSession? Session { get; private set; }

    /// <summary>How many entries the transcript had then.</summary>
    public int TranscriptLength { get; private set; }

    internal bool TakesThis(BackEndSession session, bool replyIsDue)
    {
        if (Fault.SpoilsReply && !replyIsDue)
            return false;
        int number = ++_seen;
        if (number < _first || number - _first >= _times)
            return false;
        if (Session == null)
        {
            Session = session;
            TranscriptLength = session.BackEnd.Transcript.Length;
        }
        Interlocked.Increment(ref _applied);
        return true;
    }
}
