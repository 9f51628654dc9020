using System.Diagnostics;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;

namespace Vmm.VhostUserBackEnd.Conformance;

/// <summary>How a scenario ended.</summary>
public enum ScenarioOutcome
{
    Pass,
    Fail,

    /// <summary>The front-end never came to where the scenario begins.</summary>
    Skip,
}

/// <summary>What is to be said about a scenario.</summary>
public sealed record ScenarioResult(Scenario Scenario, ScenarioOutcome Outcome, string Why, Transcript Transcript);

/// <summary>What the runner has to know about a front-end.</summary>
public sealed class ConformanceOptions
{
    /// <summary>Where it finds its back-end; it may be there from the start, or be started by <see cref="OnListening"/>.</summary>
    public required string Socket { get; init; }

    /// <summary>Whether the front-end is the one that listens.</summary>
    public bool Client { get; init; }

    /// <summary>Makes the device, where the front-end needs one of a kind; it gets the regions of the scenarios beside its own features.</summary>
    public Func<DeviceModel> Device { get; init; } = () => new ShmemDevice(Scenarios.RegionSizes);

    /// <summary>Called when the back-end is there.</summary>
    public Action? OnListening { get; init; }

    /// <summary>Called at the end of a scenario, before the back-end goes.</summary>
    public Action? OnEnd { get; init; }

    /// <summary>Tells how the front-end died, or null while it lives. Without it, a front-end's death is seen only as one that does not come back.</summary>
    public Func<string?>? Died { get; init; }

    /// <summary>Whether a front-end that loses its back-end has to come back and start the device again.</summary>
    public bool ComesBack { get; init; }

    /// <summary>How long it may take until it starts the device.</summary>
    public TimeSpan StartTimeout { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long it may take to see a fault that is in front of it.</summary>
    public TimeSpan ReactionTimeout { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>How long it has to leave alone what it must not start.</summary>
    public TimeSpan QuietTime { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>How long it may wait for a reply that does not come.</summary>
    public TimeSpan SilenceTimeout { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>Called with each message.</summary>
    public Action<TranscriptEntry>? Trace { get; init; }
}

/// <summary>Runs scenarios against a front-end, one by one.</summary>
public static class ConformanceRunner
{
    private const int Settle = 300;

    public static ScenarioResult Run(Scenario scenario, ConformanceOptions options)
    {
        ArgumentNullException.ThrowIfNull(scenario);
        ArgumentNullException.ThrowIfNull(options);
        DeviceModel device = options.Device();
        try
        {
            var backEnd = new BackEnd(device) { ShmemSizes = Scenarios.RegionSizes, ChannelTimeout = (int)options.SilenceTimeout.TotalMilliseconds };
            backEnd.ProtocolFeatures |= ProtocolFeatures.SHMEM;
            backEnd.ProtocolFeatures &= ~scenario.Without;
            backEnd.Transcript.Trace = options.Trace;
            scenario.Prepare?.Invoke(backEnd);
            return Run(scenario, options, backEnd);
        }
        finally
        {
            (device as IDisposable)?.Dispose();
        }
    }

    private static ScenarioResult Run(Scenario scenario, ConformanceOptions options, BackEnd backEnd)
    {
        ScenarioResult Result(ScenarioOutcome outcome, string why) => new(scenario, outcome, why, backEnd.Transcript);
        try
        {
            PlannedFault? planned = Plan(scenario, backEnd, out Func<string?>? early);
            using BackEndServer server = options.Client ? BackEndServer.Connect(backEnd, options.Socket) : BackEndServer.Listen(backEnd, options.Socket);
            options.OnListening?.Invoke();
            try
            {
                switch (scenario)
                {
                    case ReplyScenario reply:
                        AfterReply(reply, planned!, options, backEnd);
                        break;
                    case ChannelScenario channel:
                        OnChannel(channel, options, backEnd, planned, early);
                        break;
                    case ChangeScenario change:
                        AfterChange(change, options, backEnd);
                        break;
                }
                if (options.Died?.Invoke() is { } death)
                    return Result(ScenarioOutcome.Fail, $"the front-end died: {death}");
            }
            finally
            {
                options.OnEnd?.Invoke();
            }
        }
        catch (Verdict verdict)
        {
            return options.Died?.Invoke() is { } death
                ? Result(ScenarioOutcome.Fail, $"the front-end died: {death}")
                : Result(verdict.Outcome, verdict.Message);
        }
        return backEnd.Violations.Count == 0 ? Result(ScenarioOutcome.Pass, "") : Result(ScenarioOutcome.Fail, $"meanwhile: {string.Join("; ", backEnd.Violations)}");
    }

    private static PlannedFault? Plan(Scenario scenario, BackEnd backEnd, out Func<string?>? early)
    {
        early = null;
        if (scenario is ReplyScenario reply)
            return backEnd.Plan(reply.Request, reply.Fault, reply.First, reply.Times);
        if (scenario is not ChannelScenario { BeforeStart: true } channel)
            return null;
        // The front-end waits for the reply to this meanwhile, which must not keep it from answering.
        string? wrong = null;
        early = () => wrong;
        return backEnd.Plan(FrontEndRequest.GET_SHMEM_CONFIG, Fault.Before((session, _) =>
        {
            try
            {
                if (session.Channel != null)
                    Steps(channel.Steps, session);
                else
                    wrong = "SKIP: the channel comes after the configuration of the regions";
            }
            catch (Verdict verdict)
            {
                wrong = verdict.Message;
            }
        }));
    }

    private static void AfterReply(ReplyScenario scenario, PlannedFault planned, ConformanceOptions options, BackEnd backEnd)
    {
        var clock = Stopwatch.StartNew();
        bool late = scenario.Request is FrontEndRequest.GET_VRING_BASE or FrontEndRequest.SET_LOG_BASE or FrontEndRequest.SET_DEVICE_STATE_FD or FrontEndRequest.CHECK_DEVICE_STATE;
        while (planned.Applied == 0)
        {
            if (clock.Elapsed > options.StartTimeout)
                throw Skip($"{scenario.Request} did not come within {options.StartTimeout.TotalSeconds:0} s, or wanted no reply");
            if (!late && Running(backEnd) != null)
            {
                Thread.Sleep(Settle);
                if (planned.Applied == 0)
                    throw Skip($"the device was started without {scenario.Request}, or it wanted no reply");
            }
            Thread.Sleep(5);
        }
        // It may have come back already.
        BackEndSession session = planned.Session!;
        TimeSpan reaction = scenario.IsSilence ? options.SilenceTimeout : options.ReactionTimeout;
        switch (scenario.Must)
        {
            case MustDo.Break:
                if (!session.WaitForEnd((int)reaction.TotalMilliseconds))
                    throw Fail($"the connection was open {reaction.TotalSeconds:0} s after the fault");
                ComeBack(options, backEnd);
                break;
            case MustDo.NotStart:
                clock.Restart();
                while (clock.Elapsed < options.QuietTime)
                {
                    bool enables = scenario.Request != FrontEndRequest.SET_VRING_ENABLE && Starts(backEnd, planned.TranscriptLength) > 0;
                    if (enables || Running(backEnd) != null)
                        throw Fail("the device was started all the same");
                    Thread.Sleep(5);
                }
                break;
            case MustDo.Start:
                if (!Until(() => session.HasEnded || Running(backEnd) == session, options.StartTimeout) || session.HasEnded)
                    throw Fail("the device was not started on this connection");
                break;
            case MustDo.StartAgain:
                if (!Until(() => Starts(backEnd, planned.TranscriptLength) > 0 && Running(backEnd) != null, options.StartTimeout))
                    throw Fail("the device was not started again");
                break;
        }
    }

    private static void OnChannel(ChannelScenario scenario, ConformanceOptions options, BackEnd backEnd, PlannedFault? planned, Func<string?>? early)
    {
        BackEndSession session = Started(scenario, options, backEnd);
        if (session.Channel == null)
            throw Skip("the front-end gave no channel");
        if (!scenario.BeforeStart)
            Steps(scenario.Steps, session);
        else if (planned!.Applied == 0)
            throw Skip("GET_SHMEM_CONFIG did not come");
        else if (early!() is { } wrong)
            throw wrong.StartsWith("SKIP: ", StringComparison.Ordinal) ? Skip(wrong[6..]) : Fail(wrong);
        if (scenario.ChannelLives)
        {
            // Any request that there is not: a channel that is in step refuses it.
            ChannelAnswer probe = session.Channel.AskRaw(77, MessageFlags.Version | MessageFlags.NeedReply, [], wait: true);
            if (!probe.IsRefusal)
                throw Fail($"the channel does not live any more: {probe}");
        }
        Thread.Sleep(Settle);
        if (session.HasEnded && !scenario.MayBreak)
            throw Fail("the front-end ended the connection");
    }

    private static void AfterChange(ChangeScenario scenario, ConformanceOptions options, BackEnd backEnd)
    {
        BackEndSession session = Started(scenario, options, backEnd);
        Steps(scenario.Before, session);
        scenario.Change(backEnd);
        session.Disconnect();
        session.WaitForEnd();
        if (!Until(() => backEnd.Session != session, options.ComesBack ? options.StartTimeout : options.SilenceTimeout))
            throw options.ComesBack ? Fail("the front-end did not come back") : Skip("the front-end did not come back");
        bool runs = Until(() => Running(backEnd) != null, scenario.Must == MustDo.Start ? options.StartTimeout : options.QuietTime);
        if (runs != (scenario.Must == MustDo.Start))
            throw Fail(runs ? "the device was started all the same" : "the device was not started again");
        if (runs)
            Steps(scenario.After, backEnd.Session!);
    }

    private static BackEndSession Started(Scenario scenario, ConformanceOptions options, BackEnd backEnd)
    {
        if (!Until(() => Running(backEnd) != null, options.StartTimeout))
            throw Skip($"the device was not started within {options.StartTimeout.TotalSeconds:0} s");
        BackEndSession session = Running(backEnd) ?? throw Fail("the connection ended by itself");
        if (!session.HasProtocolFeature(scenario.Needs))
            throw Skip($"the front-end does without {scenario.Needs & ~session.AckedProtocolFeatures}");
        return session;
    }

    private static void ComeBack(ConformanceOptions options, BackEnd backEnd)
    {
        if (!options.ComesBack)
            return;
        backEnd.ClearFaults();
        if (!Until(() => Running(backEnd) != null, options.StartTimeout))
            throw Fail("the front-end did not come back and start the device");
    }

    private static void Steps(ReadOnlySpan<ChannelStep> steps, BackEndSession session)
    {
        for (int i = 0; i < steps.Length; i++)
        {
            if (StepRunner.Run(steps[i], session) is { } wrong)
                throw Fail($"step {i + 1}: {wrong}");
        }
    }

    private static BackEndSession? Running(BackEnd backEnd) =>
        backEnd.Session is { HasEnded: false, IsGoing: false } session && session.Vrings.Any(Runs) ? session : null;

    private static bool Runs(Vring vring) => vring.IsStarted && vring.IsEnabled;

    private static int Starts(BackEnd backEnd, int since) => backEnd.Transcript.Entries.Skip(since).Count(entry =>
        entry.Kind == TranscriptKind.Request && entry.Name == nameof(FrontEndRequest.SET_VRING_ENABLE)
        && entry.Payload.Length == VringState.Length && VringState.Read(entry.Payload).Num == 1);

    private static bool Until(Func<bool> condition, TimeSpan timeout)
    {
        var clock = Stopwatch.StartNew();
        while (!condition())
        {
            if (clock.Elapsed > timeout)
                return false;
            Thread.Sleep(5);
        }
        return true;
    }

    private static Verdict Fail(string why) => new(ScenarioOutcome.Fail, why);

    private static Verdict Skip(string why) => new(ScenarioOutcome.Skip, why);

    /// <summary>Ends a scenario where it is.</summary>
    private sealed class Verdict : Exception
    {
        internal Verdict(ScenarioOutcome outcome, string why) : base(why) => Outcome = outcome;

        internal ScenarioOutcome Outcome { get; }
    }
}
