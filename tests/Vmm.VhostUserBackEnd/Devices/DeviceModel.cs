using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;

namespace Vmm.VhostUserBackEnd;

/// <summary>What <see cref="DeviceModel.Handle"/> answers beside the number of bytes that it wrote.</summary>
public static class DeviceModelResult
{
    /// <summary>The chain is never given back.</summary>
    public const int KeepForEver = -1;
}

/// <summary>What a back-end does for a device: features, configuration space, and the requests of its queues.</summary>
public abstract class DeviceModel
{
    /// <summary>The device's own feature bits, without those of rings and transports.</summary>
    public virtual ulong Features => 0;

    public virtual int QueueCount => 1;

    /// <summary>The configuration space at the start; the back-end keeps it.</summary>
    public virtual byte[] InitialConfig => [];

    /// <summary>The size of each shared memory region under its identifier.</summary>
    public virtual ulong[] ShmemSizes => [];

    /// <summary>Serves one chain, on its queue's thread.</summary>
    /// <returns>The number of bytes written from the start of the writable part, or <see cref="DeviceModelResult.KeepForEver"/>.</returns>
    public abstract int Handle(BackEndSession session, Vring queue, Chain chain);

    /// <summary>A connection has begun.</summary>
    public virtual void Attached(BackEndSession session)
    {
    }

    /// <summary>A connection has ended; its rings are stopped.</summary>
    public virtual void Detached(BackEndSession session)
    {
    }

    /// <summary>The front-end wrote to the configuration space, which has changed already.</summary>
    public virtual void ConfigWritten(BackEndSession session, int offset, int length)
    {
    }

    /// <summary>GPU_SET_SOCKET: a display. It is the device's then.</summary>
    public virtual void DisplayGiven(BackEndSession session, UnixStream display) => display.Dispose();

    /// <summary>RESET_DEVICE.</summary>
    public virtual void Reset(BackEndSession session)
    {
    }

    /// <summary>The state that SET_DEVICE_STATE_FD saves.</summary>
    public virtual byte[] SaveState() => [];

    /// <summary>Takes a saved state; false refuses it.</summary>
    public virtual bool LoadState(ReadOnlySpan<byte> state) => true;
}

/// <summary>A device that copies what it can read to what it can write.</summary>
public sealed class EchoDevice : DeviceModel
{
    private readonly int _queues;

    public EchoDevice(int queues = 1) => _queues = queues;

    public override int QueueCount => _queues;

    public override int Handle(BackEndSession session, Vring queue, Chain chain) => chain.Write(0, chain.ReadAll());
}

/// <summary>virtio-rng (VIRTIO 1.3 §5.4).</summary>
public sealed class RngDevice : DeviceModel
{
    public override int Handle(BackEndSession session, Vring queue, Chain chain)
    {
        var data = new byte[chain.WritableLength];
        Random.Shared.NextBytes(data);
        return chain.Write(0, data);
    }
}

/// <summary>A device that does nothing by itself but have shared memory regions, which a test or the tool maps into.</summary>
public sealed class ShmemDevice : DeviceModel
{
    private readonly ulong[] _sizes;
    private readonly int _queues;

    /// <param name="sizes">The size of each region under its identifier.</param>
    /// <param name="queues">How many queues, all of which echo.</param>
    public ShmemDevice(ulong[] sizes, int queues = 1)
    {
        _sizes = sizes;
        _queues = queues;
    }

    public override ulong[] ShmemSizes => _sizes;

    public override int QueueCount => _queues;

    /// <summary>Zeros, so that there is something to ask for.</summary>
    public override byte[] InitialConfig => new byte[64];

    public override int Handle(BackEndSession session, Vring queue, Chain chain) => chain.Write(0, chain.ReadAll());
}
