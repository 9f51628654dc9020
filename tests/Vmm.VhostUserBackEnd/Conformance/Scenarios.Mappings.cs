using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.VhostUserBackEnd.Conformance.MustAnswer;

namespace Vmm.VhostUserBackEnd.Conformance;

public static partial class Scenarios
{
    private const ulong Page = 0x1000;

    private static IEnumerable<Scenario> Mappings()
    {
        yield return Of("map", "maps and unmaps", "say that it has", Map(0, 0, Page, Success), Unmap(0, 0, Page, Success));
        yield return Of("map-whole-region", "maps all of a region", "say that it has", Map(0, 0, 1 << 20, Success), Unmap(0, 0, 1 << 20, Success));
        yield return Of("sparse-ids", "maps into region 2 where there is no region 1", "know the one and refuse the other",
            Map(2, 0, Page, Success), Map(1, 0, Page, Refusal), Map(3, 0, Page, Refusal), Map(255, 0, Page, Refusal));
        yield return Of("bounds", "maps beyond a region's end", "refuse it",
            Map(0, 1 << 20, Page, Refusal), Map(0, (1 << 20) - Page, 2 * Page, Refusal), Map(2, 0x10000 - Page, 2 * Page, Refusal), Map(0, 1UL << 40, Page, Refusal),
            Map(0, (1 << 20) - Page, Page, Success));
        yield return Of("bounds-overflow", "maps a range whose end overflows", "refuse it",
            Map(0, ulong.MaxValue - Page + 1, Page, Refusal), Map(0, Page, ulong.MaxValue - Page + 1, Refusal), Map(0, 0, ulong.MaxValue, Refusal));
        yield return Of("empty", "maps nothing", "refuse it", Map(0, 0, 0, Refusal), Unmap(0, 0, 0, Refusal));
        yield return Of("unaligned-offset", "maps at a part of a page", "refuse it", Map(0, 0x800, Page, Refusal), Map(0, 1, Page, Refusal));
        yield return Of("unaligned-file-offset", "maps from a part of a page", "refuse it", Map(0, 0, Page, Refusal, fileOffset: 0x800));
        yield return Of("file-offset-overflow", "maps from where no file goes", "refuse it",
            Map(0, 0, Page, Refusal, fileOffset: ulong.MaxValue - Page + 1), Map(0, 0, Page, Refusal, fileOffset: 1UL << 63), Map(0, 0, 2 * Page, Refusal, fileOffset: (ulong)long.MaxValue - 0xFFF));
        yield return Of("odd-length", "maps a length that is not of whole pages", "round it up for what it covers, and know it by the length that was said",
            Map(0, 0, 0x1801, Success), Map(0, Page, Page, Refusal), Unmap(0, 0, 2 * Page, Refusal), Map(0, 2 * Page, Page, Success), Unmap(0, 0, 0x1801, Success));
        yield return Of("overlap", "maps over what is mapped", "refuse it, and leave the old mapping",
            Map(0, 4 * Page, 4 * Page, Success), Map(0, 4 * Page, 4 * Page, Refusal), Map(0, 0, 5 * Page, Refusal), Map(0, 7 * Page, 4 * Page, Refusal), Map(0, 5 * Page, Page, Refusal),
            Map(0, 0, 16 * Page, Refusal), Map(0, 0, 4 * Page, Success), Map(0, 8 * Page, Page, Success), Map(2, 4 * Page, Page, Success), Unmap(0, 4 * Page, 4 * Page, Success));
        yield return Of("exact-unmap", "unmaps a part of a mapping, or more than it", "refuse it",
            Map(0, 4 * Page, 4 * Page, Success), Unmap(0, 4 * Page, Page, Refusal), Unmap(0, 4 * Page, 8 * Page, Refusal), Unmap(0, 5 * Page, 3 * Page, Refusal), Unmap(0, 5 * Page, Page, Refusal),
            Unmap(0, 0, 1 << 20, Refusal), Unmap(2, 4 * Page, 4 * Page, Refusal), Unmap(0, 4 * Page, 4 * Page, Success));
        yield return Of("two-as-one", "unmaps two neighbours as one", "refuse it",
            Map(0, 0, Page, Success), Map(0, Page, Page, Success), Unmap(0, 0, 2 * Page, Refusal), Unmap(0, 0, Page, Success), Unmap(0, Page, Page, Success));
        yield return Of("unknown-unmap", "unmaps what is not mapped", "refuse it",
            Unmap(0, 0, Page, Refusal), Map(0, 0, Page, Success), Unmap(0, 0, Page, Success), Unmap(0, 0, Page, Refusal), Unmap(200, 0, Page, Refusal), Unmap(0, 1UL << 50, Page, Refusal));
        yield return Of("remap", "replaces a mapping by unmapping and mapping", "do so, again and again",
            [.. Enumerable.Range(0, 20).SelectMany(_ => new[] { Map(0, Page, Page, Success), Unmap(0, Page, Page, Success) })]);
        yield return Of("unmap-ignores-the-rest", "unmaps with a file offset and flags", "not look at them",
            Map(0, 0, Page, Success), Unmap(0, 0, Page, Success) with { Mapping = new ShmemMapping(0, 0x5555, 0, Page, 3) });
        yield return Of("read-only", "maps what it may only read itself, for reading", "say that it has",
            Map(0, 0, Page, Success, flags: 0) with { Kind = FileKind.ReadOnlyMemory }, Map(0, Page, Page, Refusal) with { Kind = FileKind.ReadOnlyMemory });
        yield return Of("unknown-flags", "maps with flags that there are not", "refuse it", Map(0, 0, Page, Refusal, flags: 2), Map(0, 0, Page, Refusal, flags: 1UL << 63));
        yield return Of("file-too-short", "maps beyond the end of a file", "refuse it, and leave the file as it is",
            Map(0, 0, 2 * Page, Refusal) with { FileSize = 0x1000, FileKeepsSize = true }, Map(0, 0, Page, Refusal, fileOffset: Page) with { FileSize = 0x1000, FileKeepsSize = true },
            Map(0, 0, Page, Refusal) with { FileSize = 0, FileKeepsSize = true });
        foreach (FileKind kind in new[] { FileKind.Pipe, FileKind.EventFd, FileKind.Socket, FileKind.Directory, FileKind.Path })
            yield return Of($"file-is-{kind.ToString().ToLowerInvariant()}", $"maps a descriptor of kind {kind}", "refuse it", Map(0, 0, Page, Refusal) with { Kind = kind });
        yield return Of("no-fd", "maps without a descriptor", "refuse it", Map(0, 0, Page, Refusal) with { Descriptors = 0 });
        yield return Of("2-fds", "maps with two descriptors", "refuse it, and close both", Map(0, 0, Page, Refusal) with { Descriptors = 2 });
        yield return Of("253-fds", "maps with as many descriptors as there can be", "refuse it, and close all", Map(0, 0, Page, Refusal) with { Descriptors = 253 });
        yield return Of("unmap-with-fd", "unmaps with a descriptor", "refuse it, and close it",
            Map(0, 0, Page, Success), Unmap(0, 0, Page, Refusal) with { Descriptors = 1 }, Unmap(0, 0, Page, Success));
        foreach (int length in new[] { 0, 39, 41, 48, 4096 })
            yield return Of($"payload-of-{length}", $"maps with a payload of {length} bytes", "refuse it, and stay in step", Map(0, 0, Page, Refusal) with { PayloadLength = length });
        yield return Of("payload-of-64-kib", "maps with a payload that no message has", "refuse it or end the channel", Map(0, 0, Page, RefusalOrEnd) with { PayloadLength = 65536 }) with
        {
            ChannelLives = false,
            MayBreak = true,
        };
        yield return Of("without-need-reply", "maps without asking for an answer", "not answer", Map(0, 0, Page, Nothing) with { Flags = MessageFlags.Version }, Unmap(0, 0, Page, Success));
        yield return Of("truncated-later", "cuts the file that it has mapped", "still unmap it", Map(0, 0, 16 * Page, Success) with { TruncateAfter = 0 }, Unmap(0, 0, 16 * Page, Success));
        yield return Of("every-page", "maps every page of a region by itself", "say that it has, or refuse some, and live",
            Map(0, 0, Page, AnyOrEnd) with { Repeat = 256, RepeatStride = Page }, Unmap(0, 0, Page, AnyOrEnd) with { Repeat = 256, RepeatStride = Page });
        yield return Of("before-start", "maps before the device runs", "refuse it", Map(0, 0, Page, Refusal)) with { BeforeStart = true };
        yield return Of("without-send-fd", "maps although BACKEND_SEND_FD was not negotiated", "refuse it", Map(0, 0, Page, Refusal)) with
        {
            Without = ProtocolFeatures.BACKEND_SEND_FD,
            ChannelLives = false,
        };
        yield return new ChannelScenario("without-shmem", "mapping", "maps although SHMEM was not negotiated", "refuse it", Map(0, 0, Page, Refusal))
        {
            Needs = ProtocolFeatures.BACKEND_REQ | ProtocolFeatures.REPLY_ACK,
            Without = ProtocolFeatures.SHMEM,
        };
    }

    private static ChannelScenario Of(string name, string does, string must, params ChannelStep[] steps) => new(name, "mapping", does, must, steps)
    {
        Needs = ProtocolFeatures.SHMEM | ProtocolFeatures.BACKEND_REQ | ProtocolFeatures.REPLY_ACK,
    };

    private static ChannelStep Map(byte region, ulong offset, ulong length, MustAnswer must, ulong fileOffset = 0, ulong flags = ShmemMapping.ReadWrite) => new(BackEndRequest.SHMEM_MAP, must)
    {
        Mapping = new ShmemMapping(region, fileOffset, offset, length, flags),
        Descriptors = 1,
    };

    private static ChannelStep Unmap(byte region, ulong offset, ulong length, MustAnswer must) => new(BackEndRequest.SHMEM_UNMAP, must)
    {
        Mapping = new ShmemMapping(region, 0, offset, length, 0),
    };
}
