using System.Buffers.Binary;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;

namespace Vmm.VhostUserBackEnd;

/// <summary>
/// virtio-gpu (VIRTIO 1.3 §5.7) without graphics: what a guest asks of its display is asked of the front-end's, everything else is done by doing nothing.
/// What is drawn, the test draws.
/// </summary>
public sealed class GpuDevice : DeviceModel, IDisposable
{
    private const uint CmdGetDisplayInfo = 0x0100;
    private const uint CmdGetEdid = 0x010A;
    private const uint RespOkNodata = 0x1100;
    private const int HeaderLength = 24;

    private readonly Lock _gate = new();
    private readonly ManualResetEventSlim _given = new();
    private GpuDisplay? _display;

    /// <summary>VIRTIO_GPU_F_EDID.</summary>
    public override ulong Features => 1UL << 1;

    public override int QueueCount => 2;

    /// <summary>events_read, events_clear, num_scanouts, num_capsets: 16 displays, as one that knows nothing of the front-end's says.</summary>
    public override byte[] InitialConfig => [0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0];

    /// <summary>How many displays came.</summary>
    public int Displays { get; private set; }

    /// <summary>The newest display; waits for the first one.</summary>
    public GpuDisplay Display
    {
        get
        {
            if (!_given.Wait(10_000))
                throw new TimeoutException("GPU_SET_SOCKET has not come.");
            lock (_gate)
                return _display!;
        }
    }

    public override void DisplayGiven(BackEndSession session, UnixStream display)
    {
        lock (_gate)
        {
            _display?.Dispose();
            _display = new GpuDisplay(display);
            Displays++;
        }
        _given.Set();
    }

    public override void Detached(BackEndSession session)
    {
        lock (_gate)
            _display?.Dispose();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
            _display?.Dispose();
        _given.Dispose();
    }

    public override int Handle(BackEndSession session, Vring queue, Chain chain)
    {
        byte[] request = chain.ReadAll();
        uint command = request.Length >= HeaderLength ? BinaryPrimitives.ReadUInt32LittleEndian(request) : 0;
        byte[]? answer = command switch
        {
            CmdGetDisplayInfo => Display.Ask(GpuDisplay.GetDisplayInfo),
            CmdGetEdid when request.Length >= HeaderLength + 4 => Display.Ask(GpuDisplay.GetEdid, request.AsSpan(HeaderLength, 4)),
            _ => null,
        };
        if (answer == null)
        {
            answer = new byte[HeaderLength];
            BinaryPrimitives.WriteUInt32LittleEndian(answer, RespOkNodata);
        }
        return chain.Write(0, answer);
    }
}

/// <summary>The back-end's end of a connection to a display (vhost-user-gpu), by a wire format of its own.</summary>
public sealed class GpuDisplay(UnixStream stream) : IDisposable
{
    public const uint GetProtocolFeatures = 1, SetProtocolFeatures = 2, GetDisplayInfo = 3, CursorPos = 4, CursorPosHide = 5, CursorUpdate = 6, Scanout = 7,
        Update = 8, DmabufScanout = 9, DmabufUpdate = 10, GetEdid = 11, DmabufScanout2 = 12;

    private const int HeaderLength = 12;
    private readonly Lock _gate = new();

    /// <summary>Whether the other end has gone, or has said something.</summary>
    public bool HasInput => stream.HasInput;

    /// <summary>Bytes of a message: request, flags, size, and 32-bit numbers.</summary>
    public static byte[] Encode(uint request, params ReadOnlySpan<uint> numbers)
    {
        byte[] message = new byte[HeaderLength + (numbers.Length * sizeof(uint))];
        BinaryPrimitives.WriteUInt32LittleEndian(message, request);
        BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(8), numbers.Length * sizeof(uint));
        for (int i = 0; i < numbers.Length; i++)
            BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(HeaderLength + (i * sizeof(uint))), numbers[i]);
        return message;
    }

    /// <summary>Sends any bytes.</summary>
    /// <returns>0, or an errno.</returns>
    public int Send(ReadOnlySpan<byte> bytes, params ReadOnlySpan<int> descriptors) => stream.Send(bytes, descriptors, 10_000);

    /// <summary>Draws a rectangle of one colour.</summary>
    public int Fill(uint x, uint y, uint width, uint height, uint colour)
    {
        uint[] numbers = new uint[5 + (width * height)];
        (numbers[1], numbers[2], numbers[3], numbers[4]) = (x, y, width, height);
        numbers.AsSpan(5).Fill(colour);
        return Send(Encode(Update, numbers));
    }

    /// <summary>Asks something, and gives the payload of the answer; null where there is none that is one.</summary>
    public byte[]? Ask(uint request, params ReadOnlySpan<byte> payload)
    {
        lock (_gate)
        {
            byte[] message = new byte[HeaderLength + payload.Length];
            BinaryPrimitives.WriteUInt32LittleEndian(message, request);
            BinaryPrimitives.WriteInt32LittleEndian(message.AsSpan(8), payload.Length);
            payload.CopyTo(message.AsSpan(HeaderLength));
            return Send(message) == 0 && Receive() is { } answer && BinaryPrimitives.ReadUInt32LittleEndian(answer) == request ? answer[HeaderLength..] : null;
        }
    }

    /// <summary>A whole message; null where the other end has gone.</summary>
    public byte[]? Receive(int timeoutMilliseconds = 10_000)
    {
        byte[] head = new byte[HeaderLength];
        if (stream.ReceiveExactly(head, [], timeoutMilliseconds) != 0)
            return null;
        byte[] message = new byte[HeaderLength + BinaryPrimitives.ReadInt32LittleEndian(head.AsSpan(8))];
        head.CopyTo(message, 0);
        return stream.ReceiveExactly(message.AsSpan(HeaderLength), [], timeoutMilliseconds) == 0 ? message : null;
    }

    /// <summary>Waits for the other end to go, and throws away what it says before.</summary>
    public bool WaitForEnd(int timeoutMilliseconds = 10_000)
    {
        byte[] one = new byte[1];
        int result;
        do
            result = stream.ReceiveExactly(one, [], timeoutMilliseconds);
        while (result == 0);
        return result == Core.Interop.LibC.ECONNRESET;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        stream.Shutdown();
        stream.Dispose();
    }
}
