using System.Buffers.Binary;
using System.Text;
using Vmm.Core;
using Vmm.Machine.BackEnds;
using Vmm.Machine.Configuration;
using Vmm.Virtio;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.VhostUser;
using Vmm.Virtio.VhostUser.Gpu;

namespace Vmm.Machine;

/// <summary>Devices that other programs serve: one method for each kind that has an option of its own, and one for all others.</summary>
internal sealed partial class VirtioRegistry
{
    // A back-end that was started just before this program may need a moment until it listens.
    private const int Patience = 3_000;

    // One that this program starts, on a host that is busy.
    private const int StartPatience = 30_000;

    private void AddExternalDisk(DiskConfig disk, BackEndOptions backEnd, string name)
    {
        // What the driver reads as num_queues (VIRTIO 1.3 §5.2.4) are the queues that it finds here, not those that the back-end could have.
        byte[] queues = new byte[sizeof(ushort)];
        BinaryPrimitives.WriteUInt16LittleEndian(queues, (ushort)disk.NumQueues);
        const int offset = 34;
        AddExternal(disk.Virtio, backEnd, Settings(disk.Virtio, backEnd, name, VirtioDeviceType.Block, Repeat(disk.QueueSize, disk.NumQueues)) with
        {
            ConfigurationLength = 60,
            ConfigurationOverlay = [(offset, queues)],
        });
    }

    private void AddExternalCard(Configuration.NetConfig card, BackEndOptions backEnd, string name)
    {
        // VIRTIO 1.3 §5.1.4: the address, link up, the pairs of queues, the MTU. No back-end tells these.
        byte[] configuration = new byte[12];
        (Address(card.Mac) ?? MacAddress.Random()).CopyTo(configuration);
        configuration[6] = 1;
        int pairs = card.NumQueues / 2;
        configuration[8] = (byte)pairs;
        BinaryPrimitives.WriteUInt16LittleEndian(configuration.AsSpan(10), (ushort)(card.Mtu ?? 0));
        // These need a control queue, which is there where the pairs have to be chosen from.
        const ulong control = NetFeatures.CtrlVq | NetFeatures.CtrlRx | NetFeatures.CtrlRxExtra | NetFeatures.MultiQueue | NetFeatures.CtrlMacAddr;
        // These need commands that this side cannot obey without the back-end: offloads, RSS, hash reports, coalescing, statistics (§5.1.3).
        const ulong never = NetFeatures.CtrlVlan | NetFeatures.GuestAnnounce | NetFeatures.CtrlGuestOffloads | (1UL << 60) | (1UL << 57) | (1UL << 53) | (1UL << 52) | (1UL << 50);
        AddExternal(card.Virtio, backEnd, Settings(card.Virtio, backEnd, name, VirtioDeviceType.Network, Repeat(card.QueueSize, card.NumQueues)) with
        {
            Configuration = configuration,
            HasControlQueue = pairs > 1,
            OwnFeatures = NetFeatures.Mac | NetFeatures.Status | (card.Mtu is null ? 0 : NetFeatures.Mtu) | (pairs > 1 ? control : 0),
            RefusedFeatures = control | never,
            Mtu = (ushort?)card.Mtu,
        });
    }

    private void AddFileSystems()
    {
        // VIRTIO 1.3 §5.11.4: the tag, the number of request queues, the size of notifications.
        const int length = FsConfig.TagLength + (2 * sizeof(uint));
        for (int i = 0; i < _config.Fs.Count; i++)
        {
            FsConfig fs = _config.Fs[i];
            byte[] queues = new byte[sizeof(uint)];
            BinaryPrimitives.WriteUInt32LittleEndian(queues, (uint)fs.NumQueues);
            VhostUserSettings settings = Settings(fs.Virtio, fs.BackEnd, $"fs{i}", VirtioDeviceType.FileSystem, Repeat(fs.QueueSize, fs.NumQueues + 1));
            if (fs.Tag is null)
            {
                settings = settings with { ConfigurationLength = length, ConfigurationOverlay = [(FsConfig.TagLength, queues)] };
            }
            else
            {
                byte[] configuration = new byte[length];
                _ = Encoding.UTF8.GetBytes(fs.Tag, configuration);
                queues.CopyTo(configuration.AsSpan(FsConfig.TagLength));
                settings = settings with { Configuration = configuration };
            }
            AddExternal(fs.Virtio, fs.BackEnd, settings);
        }
    }

    private void AddGraphicsCards()
    {
        for (int i = 0; i < _config.Gpu.Count; i++)
        {
            GpuConfig gpu = _config.Gpu[i];
            // The second queue is for the cursor alone.
            ushort[] sizes = [(ushort)gpu.QueueSize, (ushort)Math.Min(gpu.QueueSize, 16)];
            AddExternal(gpu.Virtio, gpu.BackEnd, WithDisplay(
                Settings(gpu.Virtio, gpu.BackEnd, $"gpu{i}", VirtioDeviceType.Gpu, sizes) with { ConfigurationLength = 16 },
                new DisplaySettings { Width = gpu.Width, Height = gpu.Height, Screenshot = gpu.Screenshot }));
        }
    }

    private static VhostUserSettings WithDisplay(VhostUserSettings settings, DisplaySettings display)
    {
        // VIRTIO 1.3 §5.7.4: no event is to be read, none cleared, and there is one display. What follows is the back-end's.
        byte[] displays = new byte[3 * sizeof(uint)];
        displays[2 * sizeof(uint)] = 1;
        return settings with { Display = display, ConfigurationOverlay = settings.ConfigurationLength >= displays.Length ? [(0, displays)] : [] };
    }

    private void AddVsock()
    {
        if (_config.Vsock is { } vsock)
        {
            AddExternal(vsock.Virtio, vsock.BackEnd, Settings(vsock.Virtio, vsock.BackEnd, "vsock0", VirtioDeviceType.Socket, Repeat(128, 3)) with
            {
                ConfigurationLength = sizeof(ulong),
            });
        }
    }

    private void AddOthers()
    {
        for (int i = 0; i < _config.VhostUser.Count; i++)
        {
            VhostUserConfig device = _config.VhostUser[i];
            ushort[] sizes = [.. device.QueueSizes.Select(size => (ushort)size)];
            VhostUserSettings settings = Settings(device.Virtio, device.BackEnd, $"vu{i}", (VirtioDeviceType)device.Type, sizes) with { ConfigurationLength = device.ConfigSize };
            AddExternal(device.Virtio, device.BackEnd, settings.Type == VirtioDeviceType.Gpu ? WithDisplay(settings, new DisplaySettings()) : settings);
        }
    }

    private static VhostUserSettings Settings(VirtioOptions options, BackEndOptions backEnd, string name, VirtioDeviceType type, ushort[] queueSizes) => new()
    {
        Id = options.Id ?? name,
        Socket = backEnd.Socket ?? "",
        Type = type,
        QueueSizes = queueSizes,
        Server = backEnd.Server,
        Reconnect = backEnd.Reconnect,
        SharedMemoryIsBit21 = backEnd.SharedMemoryIsBit21,
    };

    private void AddExternal(VirtioOptions options, BackEndOptions asked, VhostUserSettings settings)
    {
        // As a server it waits for as long as it takes: who connects may be started by hand.
        VhostUserBackEnd backEnd = asked.Exec is { } command
            ? OpenStarted(Open(BackEndProcess.Start(settings.Id, command, asked.Reconnect != null, _report)), settings)
            : Open(VhostUserBackEnd.Open(settings with { IsBeingStarted = asked.IsBeingStarted }, _report, settings.Server ? -1 : asked.IsBeingStarted ? StartPatience : Patience, _cancel));
        _backEnds.Add(backEnd);
        int? mappings = asked.SharedMemoryMappings;
        Add(settings.Id, options, 0, around => new VhostUserDevice(
            backEnd, around.Slots, mappings is { } limit ? around.SharedMemory.ForDevice(limit) : around.SharedMemory.ForDevice()));
    }

    private VhostUserBackEnd OpenStarted(BackEndProcess process, VhostUserSettings settings)
    {
        using var over = CancellationTokenSource.CreateLinkedTokenSource(process.Ended, _cancel);
        try
        {
            return Open(VhostUserBackEnd.Open(settings with { Socket = process.Socket, IsBeingStarted = true }, _report, StartPatience, over.Token));
        }
        catch (OperationCanceledException) when (!_cancel.IsCancellationRequested)
        {
            throw VmmException.Host($"The back-end of {settings.Id} ended with exit code {process.ExitCode} before it could be connected to. The log has what it printed; correct exec=.");
        }
    }

    private static ushort[] Repeat(int size, int count)
    {
        ushort[] sizes = new ushort[count];
        Array.Fill(sizes, (ushort)size);
        return sizes;
    }
}
