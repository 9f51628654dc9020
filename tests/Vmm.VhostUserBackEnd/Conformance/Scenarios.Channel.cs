using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.VhostUserBackEnd.Conformance.MustAnswer;

namespace Vmm.VhostUserBackEnd.Conformance;

public static partial class Scenarios
{
    private const uint Asking = MessageFlags.Version | MessageFlags.NeedReply;

    private static IEnumerable<Scenario> ChannelFaults()
    {
        const ProtocolFeatures needs = ProtocolFeatures.BACKEND_REQ | ProtocolFeatures.REPLY_ACK;
        ChannelScenario Fault(string name, string does, string must, params ChannelStep[] steps) => new(name, "fault", does, must, steps) { Needs = needs };
        ChannelStep Bare(uint request, MustAnswer must, uint flags = Asking) => new((BackEndRequest)request, must) { Payload = [], Flags = flags };

        yield return Fault("config-change", "says that the configuration space has changed", "say that it has heard", Bare(2, Success)) with { Needs = needs | ProtocolFeatures.CONFIG };
        yield return Fault("config-change-unasked", "says so without asking for an answer", "not answer", Bare(2, Nothing, MessageFlags.Version)) with { Needs = needs | ProtocolFeatures.CONFIG };
        yield return Fault("config-change-with-payload", "says so with a payload of 16 bytes", "answer, and stay in step", Bare(2, AnyOrEnd) with { Payload = new byte[16] }) with
        {
            Needs = needs | ProtocolFeatures.CONFIG,
            ChannelLives = false,
        };
        foreach (uint request in new uint[] { 0, 11, 99, 1002, 1003, 1004, 1005, 1006, 1007, 0xFFFFFFFF })
            yield return Fault($"channel-request-{request}", $"asks {request}, which there is not", "refuse it, and stay in step", Bare(request, Refusal) with { Payload = new byte[24] });
        yield return Fault("channel-host-notifier", "hands over a page for doorbells, which was not negotiated", "refuse it",
            Bare(3, Refusal) with { Payload = new byte[24], Descriptors = 1 });
        yield return Fault("channel-iotlb", "asks for a translation, which was not negotiated", "refuse it", Bare(1, Refusal) with { Payload = new byte[32] });
        yield return Fault("channel-vring-call", "interrupts in band, which was not negotiated", "refuse it", Bare(4, Refusal) with { Payload = new byte[8] });
        yield return Fault("channel-shared-object", "adds a shared object, which was not negotiated", "refuse it", Bare(6, Refusal) with { Payload = new byte[16] });
        yield return Fault("channel-reply-flag", "sends a reply to nothing", "refuse it or end the channel", Bare(2, RefusalOrEnd, Asking | MessageFlags.Reply)) with { ChannelLives = false, MayBreak = true };
        yield return Fault("channel-version-2", "speaks another version", "refuse it or end the channel", Bare(2, RefusalOrEnd, 2 | MessageFlags.NeedReply)) with { ChannelLives = false, MayBreak = true };
        yield return Fault("channel-half-a-header", "sends half a header and then nothing", "keep the connection and the guest running",
            Bare(2, Nothing) with { Cut = 6 }) with
        { ChannelLives = false };
        yield return Fault("channel-half-a-payload", "sends half a payload and then nothing", "keep the connection and the guest running",
            Bare(9, Nothing) with { Payload = new byte[40], Cut = 32 }) with
        { ChannelLives = false };
        yield return Fault("channel-flood", "says 20 000 times that the configuration space has changed", "hear it, and live",
            Bare(2, Nothing, MessageFlags.Version) with { Repeat = 20_000 }) with
        {
            Needs = needs | ProtocolFeatures.CONFIG,
            ChannelLives = false,
        };
        yield return Fault("channel-never-reads", "asks 20 000 times and reads no answer", "end the channel or drop the answers, and live",
            Bare(99, RefusalOrEnd) with { Repeat = 20_000, ReadsAnswers = false }) with
        { ChannelLives = false, MayBreak = true };
        yield return new ChannelScenario("channel-need-reply-without-reply-ack", "fault", "asks for an answer although REPLY_ACK was not negotiated", "not answer",
            Bare(2, Nothing))
        {
            Needs = ProtocolFeatures.BACKEND_REQ | ProtocolFeatures.CONFIG,
            Without = ProtocolFeatures.REPLY_ACK,
            ChannelLives = false,
        };
    }
}
