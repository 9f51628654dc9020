using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd.Conformance;

/// <summary>What a front-end must do once a fault was put in front of it.</summary>
public enum MustDo
{
    /// <summary>End the connection.</summary>
    Break,

    /// <summary>Not start the device on this connection: no queue is enabled any more.</summary>
    NotStart,

    /// <summary>Go on and start the device.</summary>
    Start,

    /// <summary>Give the operation up and start the device again, on this connection or on another.</summary>
    StartAgain,
}

/// <summary>What a front-end must answer on the back-end's channel.</summary>
public enum MustAnswer
{
    /// <summary>0.</summary>
    Success,

    /// <summary>Anything else than 0.</summary>
    Refusal,

    /// <summary>Anything else than 0, or the end of the channel.</summary>
    RefusalOrEnd,

    /// <summary>Any number, or the end of the channel.</summary>
    AnyOrEnd,

    /// <summary>Nothing.</summary>
    Nothing,
}

/// <summary>
/// A named piece of a back-end's behaviour, right or wrong, and what a front-end must do about it as far as the back-end can see. Data: the
/// runner does what it says.
/// </summary>
/// <param name="Name">Unique, in lower case with hyphens.</param>
/// <param name="Rule">Which table of the rules it is of: mapping, migration or fault.</param>
/// <param name="BackEndDoes">A sentence.</param>
/// <param name="FrontEndMust">A sentence.</param>
public abstract record Scenario(string Name, string Rule, string BackEndDoes, string FrontEndMust)
{
    /// <summary>Without these, acknowledged by the front-end, there is nothing to be seen.</summary>
    public ProtocolFeatures Needs { get; init; }

    /// <summary>These are not offered.</summary>
    public ProtocolFeatures Without { get; init; }

    /// <summary>Other changes to the back-end before the front-end connects; null where there are none.</summary>
    public Action<BackEnd>? Prepare { get; init; }

    /// <inheritdoc/>
    public sealed override string ToString() => Name;
}

/// <summary>A request is answered wrongly.</summary>
/// <param name="Name">See <see cref="Scenario"/>.</param>
/// <param name="Rule">See <see cref="Scenario"/>.</param>
/// <param name="Request">Which.</param>
/// <param name="Fault">How.</param>
/// <param name="Must">What follows.</param>
public sealed record ReplyScenario(string Name, string Rule, FrontEndRequest Request, Fault Fault, MustDo Must)
    : Scenario(Name, Rule, $"answers {Request} so: {Fault}", Sentence(Must))
{
    /// <summary>At which of the requests that it can be applied to, from 1.</summary>
    public int First { get; init; } = 1;

    /// <summary>At how many.</summary>
    public int Times { get; init; } = 1;

    /// <summary>Whether it takes the front-end's deadline for a request to see it.</summary>
    public bool IsSilence => Fault.Kind is FaultKind.Silence or FaultKind.Part or FaultKind.ClaimedSize;

    private static string Sentence(MustDo must) => must switch
    {
        MustDo.Break => "end the connection, and live",
        MustDo.NotStart => "not start the device on this connection",
        MustDo.Start => "go on and start the device",
        _ => "start the device again",
    };
}

/// <summary>The back-end asks on its own channel, once the device runs.</summary>
public sealed record ChannelScenario(string Name, string Rule, string BackEndDoes, string FrontEndMust, params ChannelStep[] Steps)
    : Scenario(Name, Rule, BackEndDoes, FrontEndMust)
{
    /// <summary>Whether the steps are done at SET_BACKEND_REQ_FD's heels, before the device runs.</summary>
    public bool BeforeStart { get; init; }

    /// <summary>Whether the channel must still serve a request afterwards.</summary>
    public bool ChannelLives { get; init; } = true;

    /// <summary>Whether the front-end may also end the connection.</summary>
    public bool MayBreak { get; init; }
}

/// <summary>The device is another one when the front-end comes back.</summary>
public sealed record ChangeScenario(string Name, string Rule, string BackEndDoes, string FrontEndMust, Action<BackEnd> Change, MustDo Must)
    : Scenario(Name, Rule, BackEndDoes, FrontEndMust)
{
    /// <summary>What is done on the first connection, once the device runs.</summary>
    public ChannelStep[] Before { get; init; } = [];

    /// <summary>What is done on the second.</summary>
    public ChannelStep[] After { get; init; } = [];
}

/// <summary>What a descriptor of a step is.</summary>
public enum FileKind
{
    /// <summary>Memory of <see cref="ChannelStep.FileSize"/> bytes.</summary>
    Memory,

    /// <summary>The same, opened for reading only.</summary>
    ReadOnlyMemory,

    /// <summary>The reading end of a pipe.</summary>
    Pipe,

    EventFd,

    Socket,

    Directory,

    /// <summary>The memory, opened with O_PATH.</summary>
    Path,
}

/// <summary>One request on the back-end's channel, and what must be answered.</summary>
public sealed record ChannelStep(BackEndRequest Request, MustAnswer Must)
{
    /// <summary>Of SHMEM_MAP and SHMEM_UNMAP.</summary>
    public ShmemMapping Mapping { get; init; }

    /// <summary>In place of the mapping.</summary>
    public byte[]? Payload { get; init; }

    /// <summary>The length that the payload is cut or padded to.</summary>
    public int? PayloadLength { get; init; }

    /// <summary>In place of the version and, where REPLY_ACK was negotiated, NEED_REPLY.</summary>
    public uint? Flags { get; init; }

    /// <summary>How many descriptors come with it.</summary>
    public int Descriptors { get; init; }

    public FileKind Kind { get; init; }

    public long FileSize { get; init; } = 1 << 20;

    /// <summary>The file is cut to this length when it has been answered.</summary>
    public long? TruncateAfter { get; init; }

    /// <summary>Whether the file must have the length afterwards that it had: nobody may change another's file.</summary>
    public bool FileKeepsSize { get; init; }

    /// <summary>How many times it is done in one go, with answers read behind it, or never where <see cref="ReadsAnswers"/> is false.</summary>
    public int Repeat { get; init; } = 1;

    public bool ReadsAnswers { get; init; } = true;

    /// <summary>How much the region offset grows with each repetition.</summary>
    public ulong RepeatStride { get; init; }

    /// <summary>How many bytes of the message are sent; all where it is null.</summary>
    public int? Cut { get; init; }
}
