using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.VhostUserBackEnd.Protocol.FrontEndRequest;

namespace Vmm.VhostUserBackEnd.Conformance;

public static partial class Scenarios
{
    private static IEnumerable<Scenario> Replies()
    {
        // A reply of a request that all front-ends send, one to a configuration request, and an acknowledgement.
        foreach ((string name, FrontEndRequest request, ProtocolFeatures needs) in new[]
        {
            ("features", GET_FEATURES, default),
            ("queue-num", GET_QUEUE_NUM, ProtocolFeatures.MQ),
            ("channel-ack", SET_BACKEND_REQ_FD, ProtocolFeatures.BACKEND_REQ | ProtocolFeatures.REPLY_ACK),
            ("kick-ack", SET_VRING_KICK, ProtocolFeatures.REPLY_ACK),
        })
        {
            foreach ((string what, Fault fault) in new[]
            {
                ("wrong-id", Fault.WrongId),
                ("no-reply-flag", Fault.NoReplyFlag),
                ("version-0", Fault.Version(0)),
                ("version-2", Fault.Version(2)),
                ("reserved-flags", Fault.ExtraFlags(0x10)),
                ("need-reply-flag", Fault.ExtraFlags(MessageFlags.NeedReply)),
                ("empty", Fault.Size(0)),
                ("short", Fault.Size(4)),
                ("long", Fault.Size(16)),
                ("huge", Fault.ClaimedSize(0xFFFFFFFF)),
                ("claims-4-kib-more", Fault.ClaimedSize(4104)),
                ("half-a-header", Fault.Part(5)),
                ("half-a-payload", Fault.Part(16)),
                ("silence", Fault.Silence),
                ("twice", Fault.Twice),
                ("a-descriptor", Fault.ExtraDescriptors(1)),
                ("40-descriptors", Fault.ExtraDescriptors(40)),
                ("253-descriptors", Fault.ExtraDescriptors(253)),
                ("hangup", Fault.Close),
            })
                yield return new ReplyScenario($"{name}-{what}", "fault", request, fault, MustDo.Break) { Needs = needs };
            yield return new ReplyScenario($"{name}-slow", "fault", request, Fault.Slow(1000), MustDo.Start) { Needs = needs };
            yield return new ReplyScenario($"{name}-hangup-behind", "fault", request, Fault.CloseAfter, MustDo.Break) { Needs = needs };
        }
        foreach ((FrontEndRequest request, ProtocolFeatures needs) in new[]
        {
            (SET_BACKEND_REQ_FD, ProtocolFeatures.BACKEND_REQ | ProtocolFeatures.REPLY_ACK),
            (ADD_MEM_REG, ProtocolFeatures.CONFIGURE_MEM_SLOTS | ProtocolFeatures.REPLY_ACK),
            (SET_VRING_KICK, ProtocolFeatures.REPLY_ACK),
            (SET_VRING_CALL, ProtocolFeatures.REPLY_ACK),
            (SET_VRING_ENABLE, ProtocolFeatures.REPLY_ACK),
        })
            yield return new ReplyScenario($"refused-{Words(request)}", "fault", request, Fault.Nack(), MustDo.NotStart) { Needs = needs, Times = int.MaxValue };
        yield return new ReplyScenario("refused-set-mem-table", "fault", SET_MEM_TABLE, Fault.Nack(), MustDo.NotStart)
        {
            Needs = ProtocolFeatures.REPLY_ACK,
            Without = ProtocolFeatures.CONFIGURE_MEM_SLOTS,
            Times = int.MaxValue,
        };
        foreach (FrontEndRequest request in new[] { SET_OWNER, SET_FEATURES, SET_VRING_NUM, SET_VRING_ADDR })
        {
            yield return new ReplyScenario($"answers-{Words(request)}-unasked", "fault", request, Fault.Unsolicited, MustDo.Break);
            yield return new ReplyScenario($"hangup-at-{Words(request)}", "fault", request, Fault.Close, MustDo.Break);
        }
        yield return new ReplyScenario("queue-num-0", "fault", GET_QUEUE_NUM, Fault.Answer(0), MustDo.NotStart) { Needs = ProtocolFeatures.MQ, Times = int.MaxValue };
        yield return new ReplyScenario("mem-slots-0", "fault", GET_MAX_MEM_SLOTS, Fault.Answer(0), MustDo.NotStart)
        {
            Needs = ProtocolFeatures.CONFIGURE_MEM_SLOTS,
            Times = int.MaxValue,
        };
        foreach (Scenario scenario in ConfigAndInflight().Concat(RegionConfigurations()))
            yield return scenario;
    }

    private static IEnumerable<Scenario> ConfigAndInflight()
    {
        yield return new ReplyScenario("config-short", "fault", GET_CONFIG, Fault.Size(11), MustDo.Break) { Needs = ProtocolFeatures.CONFIG };
        yield return new ReplyScenario("config-other-offset", "fault", GET_CONFIG, Fault.Act((session, message) => Config(session, message, header => header with { Offset = 4 })), MustDo.Break)
        {
            Needs = ProtocolFeatures.CONFIG,
        };
        yield return new ReplyScenario("config-claims-more", "fault", GET_CONFIG, Fault.Act((session, message) => Config(session, message, header => header with { Size = 0xFFFFFFF0 })),
            MustDo.Break)
        { Needs = ProtocolFeatures.CONFIG };
        const ProtocolFeatures inflight = ProtocolFeatures.INFLIGHT_SHMFD;
        yield return new ReplyScenario("inflight-descriptor-missing", "fault", GET_INFLIGHT_FD, Fault.MissingDescriptors, MustDo.Break) { Needs = inflight };
        yield return new ReplyScenario("inflight-2-descriptors", "fault", GET_INFLIGHT_FD, Fault.ExtraDescriptors(1), MustDo.Break) { Needs = inflight };
        yield return new ReplyScenario("inflight-file-is-shorter", "fault", GET_INFLIGHT_FD,
            Fault.Act((session, message) => Inflight(session, message, claimed: 1 << 20)), MustDo.NotStart)
        { Needs = inflight, Times = int.MaxValue };
        yield return new ReplyScenario("inflight-is-huge", "fault", GET_INFLIGHT_FD,
            Fault.Act((session, message) => Inflight(session, message, claimed: ulong.MaxValue)), MustDo.NotStart)
        { Needs = inflight, Times = int.MaxValue };
    }

    private static IEnumerable<Scenario> RegionConfigurations()
    {
        Scenario Regions(string name, Fault fault, MustDo must) =>
            new ReplyScenario(name, "mapping", GET_SHMEM_CONFIG, fault, must) { Needs = ProtocolFeatures.SHMEM, Times = int.MaxValue };
        yield return Regions("regions-short-reply", Fault.Size(8), MustDo.NotStart);
        yield return Regions("regions-257", Fault.Answer(ShmemConfig.ToBytes(RegionSizes, 257)), MustDo.NotStart);
        yield return Regions("regions-fewer-than-sizes", Fault.Answer(ShmemConfig.ToBytes(RegionSizes, 1)), MustDo.NotStart);
        yield return Regions("regions-not-of-pages", Fault.Answer(ShmemConfig.ToBytes([0x1001])), MustDo.NotStart);
        yield return Regions("regions-overflow", Fault.Answer(ShmemConfig.ToBytes([1UL << 63, 1UL << 63])), MustDo.NotStart);
        yield return Regions("regions-counted-as-a-row", Fault.Answer(ShmemConfig.ToBytes(RegionSizes, 3)), MustDo.Start);
        yield return new ReplyScenario("regions-silence", "fault", GET_SHMEM_CONFIG, Fault.Silence, MustDo.Break) { Needs = ProtocolFeatures.SHMEM };
    }

    private static string Words(FrontEndRequest request) => request.ToString().ToLowerInvariant().Replace('_', '-');

    private static void Config(BackEndSession session, Message message, Func<ConfigHeader, ConfigHeader> change)
    {
        ConfigHeader header = ConfigHeader.Read(message.Payload);
        session.Connection.Reply(GET_CONFIG, change(header).ToBytes(new byte[header.Size]));
    }

    private static void Inflight(BackEndSession session, Message message, ulong claimed)
    {
        using var file = new FileDescriptor(LibC.memfd_create("inflight", LibC.MFD_CLOEXEC));
        _ = LibC.ftruncate(file.Number, 4096);
        session.Connection.Reply(GET_INFLIGHT_FD, (InflightDescription.Read(message.Payload) with { MmapSize = claimed }).ToBytes(), file.Number);
    }
}
