using Vmm.Core;
using Vmm.Core.Memory;
using Vmm.Machine.Configuration;
using Vmm.Virtio;
using Vmm.Virtio.Devices.Balloon;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Mem;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Transport;
using Vmm.Virtio.VhostUser;

namespace Vmm.Machine;

/// <summary>
/// What can be changed while the guest runs. The guest follows in its own time, and a reboot of it begins again with what the configuration
/// says.
/// </summary>
public sealed partial class VirtualMachine
{
    /// <summary>Bytes that the guest has put into its balloon; 0 where it has none, or does not run.</summary>
    public ulong BalloonSize
    {
        get
        {
            using (_lock.Enter())
                return Find<BalloonDevice>()?.Actual ?? 0;
        }
    }

    /// <summary>Bytes of memory that the guest has plugged in; 0 where there are none, or it does not run.</summary>
    public ulong PluggedMemory
    {
        get
        {
            using (_lock.Enter())
                return Find<MemDevice>()?.PluggedSize ?? 0;
        }
    }

    /// <summary>Asks the guest to give up so much of its memory, more or less than before; <see cref="BalloonSize"/> follows.</summary>
    /// <param name="bytes">From 0 to the guest's memory; a part of a page (4096 bytes) does not count.</param>
    /// <exception cref="VmmException">There is no balloon, the guest does not run, or that is more than its memory.</exception>
    public void SetBalloonSize(ulong bytes)
    {
        if (bytes > _config.Memory.Size)
            throw VmmException.Configuration($"The balloon cannot take {ByteSize.Format(bytes)}: the guest's memory is {ByteSize.Format(_config.Memory.Size)}.");
        using (_lock.Enter())
            Require<BalloonDevice>("balloon (--balloon)").SetTarget(bytes);
    }

    /// <summary>Asks the guest to have so much memory plugged in; <see cref="PluggedMemory"/> follows as far as the guest can.</summary>
    /// <param name="bytes">A multiple of <see cref="MemoryConfig.HotplugUnit"/>, up to <see cref="MemoryConfig.HotplugSize"/>.</param>
    /// <exception cref="VmmException">There is nothing to plug, the guest does not run, or it cannot be so much.</exception>
    public void SetPluggedMemory(ulong bytes)
    {
        using (_lock.Enter())
            Require<MemDevice>("memory to plug in (--memory hotplug_size=)").SetRequestedSize(bytes);
    }

    /// <summary>Tells the guest the new size of a disk whose image was made larger or smaller.</summary>
    /// <param name="id">The disk's name.</param>
    /// <returns>Its size in bytes.</returns>
    /// <exception cref="VmmException">There is no such disk, or the guest does not run.</exception>
    public ulong ResizeDisk(string id)
    {
        using (_lock.Enter())
            return Require<BlockDevice>("disk", id).Resize() * 512;
    }

    /// <summary>Plugs a network card's cable in or pulls it out.</summary>
    /// <param name="id">The card's name.</param>
    /// <param name="up">In.</param>
    /// <exception cref="VmmException">There is no such card, or the guest does not run.</exception>
    public void SetLink(string id, bool up)
    {
        using (_lock.Enter())
            Require<NetDevice>("network card", id).SetLink(up);
    }

    /// <summary>Tells the virtio console the size of its terminal; nothing where there is no such console.</summary>
    public void SetConsoleSize(ushort columns, ushort rows)
    {
        using (_lock.Enter())
        {
            _consoleSize = (columns, rows);
            _life?.Devices.Console?.SetSize(columns, rows);
        }
    }

    /// <summary>
    /// Saves what the back-end of a device has inside (vhost-user DEVICE_STATE), as a migration does: while its queues stand still and with
    /// what it writes logged. The guest runs on, and the device with it, where its back-end does not end by itself then.
    /// </summary>
    /// <param name="id">The device's name.</param>
    /// <returns>The state, for <see cref="LoadBackEndState"/>; null for a back-end without any.</returns>
    /// <exception cref="VmmException">There is no such device, its guest does not run, or the back-end does not give its state.</exception>
    public byte[]? SaveBackEndState(string id)
    {
        (IVirtioTransport transport, VhostUserBackEnd backEnd, GuestMemory memory) = RequireBackEnd(id);
        using DirtyLog? log = backEnd is { CanLog: true, HasState: true } ? new DirtyLog(memory) : null;
        // Some begin to collect their state when logging begins, and take its end for a migration that was given up.
        if (log != null)
            backEnd.StartLogging(log);
        transport.Pause();
        try
        {
            return backEnd.SaveState();
        }
        finally
        {
            if (log != null)
                backEnd.StopLogging();
            transport.Resume();
        }
    }

    /// <summary>Gives a back-end a state that one of its kind had, before it goes on to serve the device.</summary>
    /// <param name="id">The device's name.</param>
    /// <param name="state">From <see cref="SaveBackEndState"/>.</param>
    /// <exception cref="VmmException">There is no such device, its guest does not run, or the back-end does not take the state.</exception>
    public void LoadBackEndState(string id, byte[] state)
    {
        (IVirtioTransport transport, VhostUserBackEnd backEnd, _) = RequireBackEnd(id);
        transport.Pause();
        try
        {
            backEnd.LoadState(state);
        }
        finally
        {
            transport.Resume();
        }
    }

    private (IVirtioTransport Transport, VhostUserBackEnd BackEnd, GuestMemory Memory) RequireBackEnd(string id)
    {
        using (_lock.Enter())
        {
            if (_life is { } life && life.Devices.Find(id) is { Device: VhostUserDevice device } transport)
                return (transport, device.BackEnd, life.Memory);
        }
        throw VmmException.Configuration($"There is no device {OptionGrammar.Show(id)} with an external back-end in this machine, or its guest does not run.");
    }

    private T? Find<T>(string? id = null) where T : VirtioDevice
    {
        if (_life == null)
            return null;
        foreach (VirtioDevice device in _life.Devices.Virtio)
        {
            if (device is T found && (id is null || device.Id == id))
                return found;
        }
        return null;
    }

    private T Require<T>(string what, string? id = null) where T : VirtioDevice =>
        Find<T>(id) ?? throw VmmException.Configuration(
            $"There is no {what}{(id is null ? "" : $" of the name {OptionGrammar.Show(id)}")} in this machine, or its guest does not run.");
}
