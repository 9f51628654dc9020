using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Virtio;
using Vmm.Virtio.Devices.Balloon;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Mem;
using Vmm.Virtio.Devices.Net;

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
