using System.Buffers.Binary;
using System.Text;
using Vmm.VhostUserBackEnd.Fuse;
using Vmm.VhostUserBackEnd.Rings;

namespace Vmm.VhostUserBackEnd;

/// <summary>virtio-fs over a directory of the host (VIRTIO 1.3 §5.11), with a DAX window where it is given a size.</summary>
public sealed class FsDevice : DeviceModel, IDisposable
{
    private const int TagLength = 36;
    private const int ConfigLength = 44;
    private const int MaximumReply = 4 << 20;

    private readonly string _tag;
    private readonly int _requestQueues;
    private readonly ulong _windowSize;

    /// <param name="directory">What the guest sees.</param>
    /// <param name="tag">What the guest mounts it by, at most 36 bytes.</param>
    /// <param name="windowSize">Of the DAX window, in bytes, a multiple of 2 MiB; 0 without.</param>
    /// <param name="requestQueues">Beside the one for urgent requests.</param>
    public FsDevice(string directory, string tag, ulong windowSize = 0, int requestQueues = 1)
    {
        Server = new FuseServer(directory, windowSize);
        _tag = tag;
        _windowSize = windowSize;
        _requestQueues = requestQueues;
    }

    public FuseServer Server { get; }

    public override int QueueCount => 1 + _requestQueues;

    public override ulong[] ShmemSizes => _windowSize == 0 ? [] : [_windowSize];

    public override byte[] InitialConfig
    {
        get
        {
            var config = new byte[ConfigLength];
            byte[] tag = Encoding.UTF8.GetBytes(_tag);
            tag.AsSpan(0, Math.Min(tag.Length, TagLength)).CopyTo(config);
            BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(TagLength), (uint)_requestQueues);
            return config;
        }
    }

    public override int Handle(BackEndSession session, Vring queue, Chain chain) =>
        chain.Write(0, Server.Serve(chain.ReadAll(), Math.Min(chain.WritableLength, MaximumReply), session.Channel));

    /// <summary>Front-ends drop all mappings at a reset and at the end of a connection.</summary>
    public override void Reset(BackEndSession session) => Server.MappingsAreGone();

    public override void Detached(BackEndSession session) => Server.MappingsAreGone();

    public void Dispose() => Server.Dispose();
}
