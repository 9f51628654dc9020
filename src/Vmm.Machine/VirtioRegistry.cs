using Vmm.Core;
using Vmm.Core.Memory;
using Vmm.Devices;
using Vmm.Machine.Configuration;
using Vmm.Virtio;
using Vmm.Virtio.Devices.Balloon;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Mem;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Devices.Pmem;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.RateLimiting;
using Vmm.Virtio.VhostUser;

namespace Vmm.Machine;

/// <summary>
/// The virtio devices of a machine: one method for each kind, which opens what outlives a reboot of the guest (images, interfaces) and
/// says how a device is made of it. A new kind is one more method here.
/// </summary>
internal sealed partial class VirtioRegistry : IDisposable
{
    private readonly VmConfig _config;
    private readonly List<VirtioPlan> _plans = [];
    private readonly List<IDisposable> _opened = [];
    private readonly List<VhostUserBackEnd> _backEnds = [];
    private readonly Action<string> _report;
    private readonly CancellationToken _cancel;

    /// <summary>Opens what the devices need.</summary>
    /// <param name="config">Which devices there are.</param>
    /// <param name="console">Takes the virtio console's output.</param>
    /// <param name="ports">The host's ends of ports beside it.</param>
    /// <param name="report">Takes sentences about what goes wrong at a device.</param>
    /// <param name="cancel">Ends a wait for back-end processes.</param>
    /// <exception cref="VmmException">A file or interface cannot be opened or does not fit its device, or a back-end is not there.</exception>
    internal VirtioRegistry(VmConfig config, IBufferedCharacterSink console, IReadOnlyList<ConsolePortEnd> ports, Action<string> report, CancellationToken cancel)
    {
        _config = config;
        _report = report;
        _cancel = cancel;
        try
        {
            AddDisks();
            AddNetworkCards();
            AddConsole(console, ports);
            AddEntropySource();
            AddBalloon();
            AddPersistentMemory();
            AddPluggableMemory();
            AddFileSystems();
            AddGraphicsCards();
            AddVsock();
            AddOthers();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Every device, in the order in which a guest is to find them.</summary>
    internal IReadOnlyList<VirtioPlan> Plans => _plans;

    /// <summary>Bytes of each persistent memory device, for the layout.</summary>
    internal IReadOnlyList<ulong> PmemSizes { get; private set; } = [];

    /// <summary>The machine is about to end: no back-end process keeps it for long.</summary>
    internal void BeginEnd()
    {
        foreach (VhostUserBackEnd backEnd in _backEnds)
            backEnd.BeginEnd();
    }

    public void Dispose()
    {
        // In reverse: what was opened later may use what was opened before.
        for (int i = _opened.Count - 1; i >= 0; i--)
            _opened[i].Dispose();
        _opened.Clear();
    }

    private void AddDisks()
    {
        for (int i = 0; i < _config.Disks.Count; i++)
        {
            DiskConfig disk = _config.Disks[i];
            if (disk.BackEnd is { } backEnd)
            {
                AddExternalDisk(disk, backEnd, $"disk{i}");
                continue;
            }
            var block = new BlockConfig
            {
                Id = disk.Virtio.Id ?? $"disk{i}",
                Path = disk.Path,
                ReadOnly = disk.ReadOnly,
                Direct = disk.Direct,
                NumQueues = disk.NumQueues,
                QueueSize = disk.QueueSize,
                Serial = disk.Serial,
                Engine = disk.Engine switch { DiskEngine.IoUring => BlockEngineKind.IoUring, DiskEngine.Sync => BlockEngineKind.Sync, _ => BlockEngineKind.Auto },
                RateLimiter = Limits(disk.Limits),
            };
            block.Validate();
            DiskImage image = Open(DiskImage.Open(block));
            // Requests are answered as they end: in order, the slowest would hold up the others.
            Add(block.Id, disk.Virtio, VirtioFeatures.InOrder, around => new BlockDevice(block, image, around.Threads.Take(disk.NumQueues), around.Report));
        }
    }

    private void AddNetworkCards()
    {
        for (int i = 0; i < _config.Net.Count; i++)
        {
            Configuration.NetConfig card = _config.Net[i];
            if (card.BackEnd is { } backEnd)
            {
                AddExternalCard(card, backEnd, $"net{i}");
                continue;
            }
            var net = new Virtio.Devices.Net.NetConfig
            {
                Id = card.Virtio.Id ?? $"net{i}",
                Tap = card.Tap,
                Fds = [.. card.Fds],
                Ip = card.Ip is null ? null : System.Net.IPAddress.Parse(card.Ip),
                Mask = card.Mask is null ? null : System.Net.IPAddress.Parse(card.Mask),
                Mac = Address(card.Mac),
                HostMac = Address(card.HostMac),
                Mtu = (ushort?)card.Mtu,
                NumQueues = card.NumQueues,
                QueueSize = (ushort)card.QueueSize,
                OffloadCsum = card.OffloadCsum,
                OffloadTso = card.OffloadTso,
                OffloadUfo = card.OffloadUfo,
                RateLimit = Limits(card.Limits),
            };
            net.Validate();
            Tap tap = Open(Tap.Open(net));
            Add(net.Id, card.Virtio, 0, around => new NetDevice(net, tap, around.Threads.Take(net.Pairs)));
        }
    }

    private void AddConsole(IBufferedCharacterSink sink, IReadOnlyList<ConsolePortEnd> ports)
    {
        bool asked = _config.Console.Backend != ConsoleBackend.Off;
        if (asked || ports.Count > 0)
            Add("console0", new VirtioOptions(), 0, around => new ConsoleDevice(new Virtio.Devices.Console.ConsoleConfig("console0", HasConsole: asked), sink, around.Threads.Take(1), ports));
    }

    private void AddEntropySource()
    {
        if (_config.Rng is { } rng)
        {
            string id = rng.Virtio.Id ?? "rng0";
            Add(id, rng.Virtio, 0, around => new RngDevice(new Virtio.Devices.Rng.RngConfig(id, rng.Source), around.Threads.Take(1)));
        }
    }

    private void AddBalloon()
    {
        if (_config.Balloon is not { } asked)
            return;
        var balloon = new Virtio.Devices.Balloon.BalloonConfig
        {
            Id = asked.Virtio.Id ?? "balloon0",
            Size = asked.Size,
            DeflateOnOom = asked.DeflateOnOom,
            FreePageReporting = asked.FreePageReporting,
            StatsPollingInterval = TimeSpan.FromSeconds(asked.StatisticsInterval),
        };
        balloon.Validate();
        if (balloon.Size > _config.Memory.Size)
            throw VmmException.Configuration($"--balloon: size={ByteSize.Format(balloon.Size)} is more than the guest's memory, {ByteSize.Format(_config.Memory.Size)}; ask for less.");
        Add(balloon.Id, asked.Virtio, 0, around => new BalloonDevice(balloon, around.Threads.Take(1)));
    }

    private void AddPersistentMemory()
    {
        var sizes = new List<ulong>();
        for (int i = 0; i < _config.Pmem.Count; i++)
        {
            Configuration.PmemConfig asked = _config.Pmem[i];
            var pmem = new Virtio.Devices.Pmem.PmemConfig(asked.File, asked.Size, asked.DiscardWrites, asked.Virtio.Id ?? $"pmem{i}");
            pmem.Validate();
            // Opened for each life anew, and once here: for its size, and so that an error comes before the guest is made.
            using (PmemFile file = PmemFile.Open(pmem))
                sizes.Add(file.Length);
            int index = i;
            Add(pmem.Id, asked.Virtio, 0, around => new PmemDevice(PmemFile.Open(pmem), around.Layout.Pmem[index].Start, around.Slots, around.Threads.Take(1)));
        }
        PmemSizes = sizes;
    }

    private void AddPluggableMemory()
    {
        MemoryConfig memory = _config.Memory;
        if (memory.HotplugSize == 0)
            return;
        var plugged = new MemConfig(memory.HotplugSize, memory.HotpluggedSize);
        plugged.Validate();
        Add(plugged.Id, new VirtioOptions(), 0, around => new MemDevice(plugged, around.Ram.Hotplug!, around.Threads.Take(1)));
    }

    private void Add(string id, VirtioOptions options, ulong withheld, Func<DeviceSurroundings, VirtioDevice> make)
    {
        if (_plans.Exists(plan => plan.Id == id))
            throw VmmException.Configuration($"two devices have the name {OptionGrammar.Show(id)}; give each its own (id=).");
        _plans.Add(new VirtioPlan(id, options.Bus ?? _config.Bus.Default, withheld | (options.Packed ? 0 : VirtioFeatures.RingPacked), make));
    }

    private T Open<T>(T opened) where T : IDisposable
    {
        _opened.Add(opened);
        return opened;
    }

    private static MacAddress? Address(string? text) =>
        text is null ? null : new MacAddress(Convert.ToUInt64(text.Replace(":", "", StringComparison.Ordinal), 16));

    private static RateLimiterConfig Limits(RateLimitOptions limits) => new(Bucket(limits.Bandwidth), Bucket(limits.Operations));

    private static TokenBucketConfig Bucket(TokenBucketOptions? bucket) =>
        bucket is null ? default : new TokenBucketConfig(bucket.Size, bucket.OneTimeBurst, (ulong)bucket.RefillMilliseconds);
}
