using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd.Conformance;

/// <summary>All scenarios.</summary>
public static partial class Scenarios
{
    /// <summary>The regions that the device of the scenarios has: the identifiers are not a row.</summary>
    public static ulong[] RegionSizes { get; } = [1 << 20, 0, 64 << 10];

    public static IReadOnlyList<Scenario> All { get; } = [.. Replies(), .. Mappings(), .. ChannelFaults(), .. Changes(), .. Migration()];

    public static Scenario Named(string name) =>
        All.FirstOrDefault(scenario => scenario.Name == name) ?? throw new ArgumentException($"There is no scenario '{name}'.", nameof(name));

    private static IEnumerable<Scenario> Changes()
    {
        yield return new ChangeScenario("comes-back", "fault", "ends the connection while the device runs, and listens again", "come back and start the device again", _ => { }, MustDo.Start);
        yield return new ChangeScenario("comes-back-without-a-feature", "fault", "offers one feature less to who comes back", "refuse it",
            backEnd => backEnd.Features &= ~Highest(backEnd.Session!.AckedFeatures & ~(DeviceFeatures.ProtocolFeatures | DeviceFeatures.LogAll)), MustDo.NotStart);
        yield return new ChangeScenario("comes-back-with-fewer-queues", "fault", "has no queue any more", "refuse it", backEnd => backEnd.QueueCount = 0, MustDo.NotStart)
        {
            Needs = ProtocolFeatures.MQ,
        };
        yield return new ChangeScenario("comes-back-with-other-regions", "fault", "has a shared memory region of another size", "refuse it: the guest has seen the first",
            backEnd => backEnd.ShmemSizes = [2 << 20, 0, 64 << 10], MustDo.NotStart)
        {
            Needs = ProtocolFeatures.SHMEM,
        };
        yield return new ChangeScenario("comes-back-without-regions", "fault", "has no shared memory any more", "refuse it",
            backEnd => backEnd.ProtocolFeatures &= ~ProtocolFeatures.SHMEM, MustDo.NotStart)
        {
            Needs = ProtocolFeatures.SHMEM,
        };
        yield return new ChangeScenario("hangup", "mapping", "ends the connection with mappings in place, and maps the same ranges on the next",
            "drop the mappings with the connection, so that they can be made again", _ => { }, MustDo.Start)
        {
            Needs = ProtocolFeatures.SHMEM,
            Before = [Map(0, 0, 0x1000, MustAnswer.Success), Map(2, 0, 0x10000, MustAnswer.Success)],
            After = [Map(0, 0, 0x1000, MustAnswer.Success), Map(2, 0, 0x10000, MustAnswer.Success)],
        };
    }

    private static IEnumerable<Scenario> Migration()
    {
        const ProtocolFeatures state = ProtocolFeatures.DEVICE_STATE;
        yield return new ReplyScenario("state-refused", "migration", FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Answer(0x101), MustDo.StartAgain) { Needs = state };
        yield return new ReplyScenario("state-check-fails", "migration", FrontEndRequest.CHECK_DEVICE_STATE, Fault.Answer(1), MustDo.StartAgain) { Needs = state };
        yield return new ReplyScenario("state-reply-is-short", "migration", FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Size(4), MustDo.Break) { Needs = state };
        yield return new ReplyScenario("state-descriptor-missing", "migration", FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Answer(0), MustDo.Break) { Needs = state };
        yield return new ReplyScenario("state-check-silence", "migration", FrontEndRequest.CHECK_DEVICE_STATE, Fault.Silence, MustDo.Break) { Needs = state };
        yield return new ReplyScenario("state-hangup", "migration", FrontEndRequest.SET_DEVICE_STATE_FD, Fault.Close, MustDo.StartAgain) { Needs = state };
        yield return new ReplyScenario("log-refused", "migration", FrontEndRequest.SET_LOG_BASE, Fault.Close, MustDo.StartAgain) { Needs = ProtocolFeatures.LOG_SHMFD };
        foreach (int size in new[] { 0, 8, 16 })
        {
            yield return new ReplyScenario($"log-reply-of-{size}", "migration", FrontEndRequest.SET_LOG_BASE, Fault.Size(size), MustDo.StartAgain)
            {
                Needs = ProtocolFeatures.LOG_SHMFD,
            };
        }
        yield return new ReplyScenario("base-beyond-16-bits", "migration", FrontEndRequest.GET_VRING_BASE, Fault.Act((session, message) => Base(session, message, real => real | 0x10000u)),
            MustDo.StartAgain);
        yield return new ReplyScenario("base-unrelated", "migration", FrontEndRequest.GET_VRING_BASE, Fault.Act((session, message) => Base(session, message, real => (real + 0x4000u) & 0xFFFF)),
            MustDo.Break);
        yield return new ReplyScenario("base-reply-is-short", "migration", FrontEndRequest.GET_VRING_BASE, Fault.Size(4), MustDo.Break);
    }

    private static void Base(BackEndSession session, Message message, Func<uint, uint> change)
    {
        uint index = VringState.Read(message.Payload).Index;
        ushort real = session.Vrings[(int)index].Stop();
        session.Connection.Reply(message.Request, new VringState(index, change(real)).ToBytes());
    }

    private static ulong Highest(ulong features) => features == 0 ? 0 : 1UL << (63 - System.Numerics.BitOperations.LeadingZeroCount(features));
}
