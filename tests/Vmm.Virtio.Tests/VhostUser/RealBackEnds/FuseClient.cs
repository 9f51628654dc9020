using System.Buffers.Binary;
using System.Text;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.VhostUser.RealBackEnds;

/// <summary>What of FUSE (linux/fuse.h, protocol 7.31 and later) a test asks of a file system, over a virtio-fs queue.</summary>
internal sealed class FuseClient(DriverQueue queue)
{
    private const uint Lookup = 1, Open = 14, Read = 15, Write = 16, Init = 26;
    private const int InHeader = 40, OutHeader = 16;

    private ulong _unique;

    /// <summary>FUSE_INIT, before anything else.</summary>
    public void Begin()
    {
        byte[] body = new byte[64];
        BinaryPrimitives.WriteUInt32LittleEndian(body, 7);
        BinaryPrimitives.WriteUInt32LittleEndian(body.AsSpan(4), 31);
        BinaryPrimitives.WriteUInt32LittleEndian(body.AsSpan(8), 128 << 10);
        (int error, _) = Ask(Init, 0, body, 64);
        Assert.Equal(0, error);
    }

    /// <summary>The node of a path below the root, and the error that the file system gave: 0 for none.</summary>
    public (ulong Node, int Error) Find(string path)
    {
        ulong node = 1;
        foreach (string name in path.Split('/'))
        {
            (int error, byte[] answer) = Ask(Lookup, node, [.. Encoding.ASCII.GetBytes(name), 0], 128);
            if (error != 0)
                return (0, error);
            node = BinaryPrimitives.ReadUInt64LittleEndian(answer);
        }
        return (node, 0);
    }

    /// <summary>A handle of an open file, for reading and writing.</summary>
    public ulong OpenFile(ulong node)
    {
        byte[] body = new byte[8];
        BinaryPrimitives.WriteUInt32LittleEndian(body, 2);
        (int error, byte[] answer) = Ask(Open, node, body, 16);
        Assert.Equal(0, error);
        return BinaryPrimitives.ReadUInt64LittleEndian(answer);
    }

    /// <summary>What is in a file, and the error.</summary>
    public (byte[] Data, int Error) ReadFile(ulong node, ulong handle, ulong offset, int length)
    {
        byte[] body = new byte[40];
        BinaryPrimitives.WriteUInt64LittleEndian(body, handle);
        BinaryPrimitives.WriteUInt64LittleEndian(body.AsSpan(8), offset);
        BinaryPrimitives.WriteUInt32LittleEndian(body.AsSpan(16), (uint)length);
        (int error, byte[] answer) = Ask(Read, node, body, length);
        return (answer, error);
    }

    /// <summary>Writes to a file; the error.</summary>
    public int WriteFile(ulong node, ulong handle, ulong offset, byte[] data)
    {
        byte[] body = [.. new byte[40], .. data];
        BinaryPrimitives.WriteUInt64LittleEndian(body, handle);
        BinaryPrimitives.WriteUInt64LittleEndian(body.AsSpan(8), offset);
        BinaryPrimitives.WriteUInt32LittleEndian(body.AsSpan(16), (uint)data.Length);
        return Ask(Write, node, body, 8).Error;
    }

    private (int Error, byte[] Answer) Ask(uint operation, ulong node, byte[] body, int room)
    {
        byte[] request = [.. new byte[InHeader], .. body];
        BinaryPrimitives.WriteUInt32LittleEndian(request, (uint)request.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(request.AsSpan(4), operation);
        BinaryPrimitives.WriteUInt64LittleEndian(request.AsSpan(8), ++_unique);
        BinaryPrimitives.WriteUInt64LittleEndian(request.AsSpan(16), node);
        byte[] answer = queue.Transact(request, OutHeader + room);
        Assert.Equal(_unique, BinaryPrimitives.ReadUInt64LittleEndian(answer.AsSpan(8)));
        int length = (int)BinaryPrimitives.ReadUInt32LittleEndian(answer);
        return (-BinaryPrimitives.ReadInt32LittleEndian(answer.AsSpan(4)), answer[OutHeader..length]);
    }
}
