using Vmm.Core.Events;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Driver;

/// <summary>The smallest device: writes of each buffer what it can read of it back into it. For tests of queues and transports.</summary>
public sealed class EchoDevice(IReadOnlyList<EventLoop> loops, int queues = 2, ushort queueSize = 256)
    : InProcessDevice("echo", VirtioDeviceType.Socket, [.. Enumerable.Repeat(queueSize, queues)], loops)
{
    private const int Budget = 32;
    private readonly byte[][] _copies = [.. Enumerable.Range(0, queues).Select(_ => new byte[4096])];
    private readonly byte[] _configuration = new byte[64];

    /// <inheritdoc/>
    public override ulong OfferedFeatures => VirtioFeatures.AllQueues;

    /// <inheritdoc/>
    public override int ConfigurationLength => _configuration.Length;

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data) => _configuration.AsSpan(offset, data.Length).CopyTo(data);

    /// <inheritdoc/>
    public override void WriteConfiguration(int offset, ReadOnlySpan<byte> data) => data.CopyTo(_configuration.AsSpan(offset));

    /// <inheritdoc/>
    public override VirtioDeviceState Save() => new State(1);

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
    }

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        int served = 0;
        byte[] copy = _copies[queue.Index];
        while (served < Budget && queue.TryTake(out DescriptorChain? chain))
        {
            ulong done = 0;
            while (chain.Read(done, copy) is var read and > 0)
            {
                int wrote = chain.Write(done, copy.AsSpan(0, read));
                done += (ulong)wrote;
                if (wrote < read)
                    break;
            }
            queue.GiveBack(chain, (uint)done);
            served++;
        }
        queue.Flush();
        return served == Budget;
    }

    private sealed record State(int Version) : VirtioDeviceState(Version);
}
