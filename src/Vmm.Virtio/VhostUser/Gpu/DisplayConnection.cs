using System.Runtime.InteropServices;
using Vmm.Core.Interop;
using Vmm.Core.Locking;
using Vmm.Core.Sockets;

namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>
/// One connection of a back-end to its display, served on the display's thread until it ends. What is sent is never trusted: a message is read by
/// parts into a buffer of fixed size, and one that cannot be right ends the connection.
/// </summary>
internal sealed class DisplayConnection
{
    /// <summary>The most pixels in each direction of a display or an update: as many as drivers and graphics cards know.</summary>
    internal const int MostAcross = 16384;

    private readonly UnixStream _stream;
    private readonly DisplaySettings _settings;
    private readonly DisplayCounters _counters;
    private readonly Picture? _picture;
    private readonly Action<string> _say;
    private readonly List<FileDescriptor> _descriptors = [];

    // Room for the longest line.
    private readonly byte[] _room = new byte[MostAcross * sizeof(uint)];

    /// <summary>Serves nothing yet.</summary>
    /// <param name="stream">Our end; stays the caller's.</param>
    /// <param name="settings">The display.</param>
    /// <param name="counters">Counts.</param>
    /// <param name="picture">Keeps what is shown; null where nobody wants to see it.</param>
    /// <param name="say">Takes sentences.</param>
    internal DisplayConnection(UnixStream stream, DisplaySettings settings, DisplayCounters counters, Picture? picture, Action<string> say)
    {
        _stream = stream;
        _settings = settings;
        _counters = counters;
        _picture = picture;
        _say = say;
    }

    /// <summary>Serves it to its end.</summary>
    /// <returns>What rule was broken; null where the peer, or we, ended it.</returns>
    internal string? Serve()
    {
        Span<byte> head = stackalloc byte[GpuHeader.Length];
        try
        {
            while (true)
            {
                LockWitness.RequireNone("waits for a back-end's next picture");
                WaitForMessage();
                int error = _stream.ReceiveExactly(head, _descriptors, -1);
                if (error != 0)
                    return error == LibC.ECONNRESET ? null : $"the connection failed: {LibC.strerror(error)}";
                string? clause = Dispatch(MemoryMarshal.Read<GpuHeader>(head));
                DropDescriptors();
                if (clause != null)
                    return clause;
            }
        }
        finally
        {
            DropDescriptors();
        }
    }

    /// <summary>Waits for the next message, and has the picture written when that is due: also while messages come all the time.</summary>
    private unsafe void WaitForMessage()
    {
        while (_picture is { IsDirty: true } picture)
        {
            long left = picture.NextWriting - Environment.TickCount64;
            if (left > 0)
            {
                var wanted = new pollfd { fd = _stream.Number, events = LibC.POLLIN };
                if (LibC.poll(&wanted, 1, (int)left) != 0)
                    return;
                continue;
            }
            picture.Write(_counters, _say);
        }
    }

    private string? Dispatch(in GpuHeader header)
    {
        var request = (GpuRequest)header.Request;
        if (request == GpuRequest.Update)
            return Update(header.Size);
        int length = LengthOf(request);
        if (length < 0)
            return $"it sent a request {header.Request}, which is not known";
        if (header.Size != (uint)length)
            return $"its request {request} has {header.Size} bytes, and {length} are right";
        Span<byte> payload = _room.AsSpan(0, length);
        if (!payload.IsEmpty && _stream.ReceiveExactly(payload, _descriptors, -1) != 0)
            return $"it hung up in the middle of its request {request}";
        bool hasBuffer = request is GpuRequest.DmabufScanout or GpuRequest.DmabufScanout2;
        if (_descriptors.Count > (hasBuffer ? 1 : 0))
            return $"its request {request} came with {_descriptors.Count} descriptors";
        _counters.CountMessage();
        return Obey(request, payload);
    }

    private static int LengthOf(GpuRequest request) => request switch
    {
        GpuRequest.GetProtocolFeatures or GpuRequest.GetDisplayInfo => 0,
        GpuRequest.SetProtocolFeatures => sizeof(ulong),
        GpuRequest.CursorPos or GpuRequest.CursorPosHide => GpuCursorPosition.Length,
        GpuRequest.CursorUpdate => GpuCursorPosition.UpdateLength,
        GpuRequest.Scanout => GpuScanout.Length,
        GpuRequest.DmabufScanout => GpuDmabufScanout.Length,
        GpuRequest.DmabufScanout2 => GpuDmabufScanout.Length2,
        GpuRequest.DmabufUpdate => GpuUpdate.Length,
        GpuRequest.GetEdid => sizeof(uint),
        _ => -1,
    };

    private string? Obey(GpuRequest request, ReadOnlySpan<byte> payload)
    {
        switch (request)
        {
            case GpuRequest.GetProtocolFeatures:
                ulong features = GpuProtocolFeatures.Implemented;
                return Answer(request, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in features)));
            case GpuRequest.SetProtocolFeatures:
                ulong accepted = MemoryMarshal.Read<ulong>(payload);
                return (accepted & ~GpuProtocolFeatures.Implemented) == 0 ? null : $"it accepted the features 0x{accepted:x}, which were not offered";
            case GpuRequest.GetDisplayInfo:
                Span<byte> information = stackalloc byte[GpuAnswers.DisplayInfoLength];
                GpuAnswers.DisplayInfo(information, _settings);
                return Answer(request, information);
            case GpuRequest.GetEdid:
                Span<byte> edid = stackalloc byte[GpuAnswers.EdidLength];
                GpuAnswers.EdidOf(edid, _settings, MemoryMarshal.Read<uint>(payload));
                return Answer(request, edid);
            case GpuRequest.Scanout:
                return Scanout(MemoryMarshal.Read<GpuScanout>(payload), hasPixels: true);
            case GpuRequest.DmabufScanout or GpuRequest.DmabufScanout2:
                GpuDmabufScanout buffer = MemoryMarshal.Read<GpuDmabufScanout>(payload);
                if (_descriptors.Count > 0)
                    _counters.CountDmabuf();
                // What is in it is the graphics card's; there is nobody to be shown it.
                return Scanout(new GpuScanout(buffer.ScanoutId, buffer.Width, buffer.Height), hasPixels: false);
            case GpuRequest.DmabufUpdate:
                _counters.CountUpdate(0);
                _counters.CountDropped();
                return Answer(request, default);
            default:
                // No cursor is drawn: it is no part of what a driver shows.
                _counters.CountCursor();
                return null;
        }
    }

    private string? Scanout(in GpuScanout scanout, bool hasPixels)
    {
        if (scanout.Width > MostAcross || scanout.Height > MostAcross)
            return $"its picture of {scanout.Width} by {scanout.Height} pixels is larger than {MostAcross} by {MostAcross}";
        _counters.CountScanout();
        if (scanout.ScanoutId != 0)
        {
            _counters.CountDropped();
            return null;
        }
        _counters.SetSize((int)scanout.Width, (int)scanout.Height);
        _picture?.SetSize(hasPixels ? (int)scanout.Width : 0, (int)scanout.Height);
        return null;
    }

    private string? Update(uint size)
    {
        Span<byte> head = _room.AsSpan(0, GpuUpdate.Length);
        if (size < GpuUpdate.Length)
            return $"its request {GpuRequest.Update} has {size} bytes, and {GpuUpdate.Length} are the least";
        if (_stream.ReceiveExactly(head, _descriptors, -1) != 0)
            return $"it hung up in the middle of its request {GpuRequest.Update}";
        GpuUpdate update = MemoryMarshal.Read<GpuUpdate>(head);
        if (update.Width > MostAcross || update.Height > MostAcross)
            return $"its update of {update.Width} by {update.Height} pixels is larger than {MostAcross} by {MostAcross}";
        long bytes = (long)update.Width * update.Height * sizeof(uint);
        if (bytes != size - GpuUpdate.Length)
            return $"its update of {update.Width} by {update.Height} pixels has {size - GpuUpdate.Length} bytes of them";
        _counters.CountMessage();
        // A rectangle may well lie outside, where a driver shows only a part of what it draws.
        Picture? picture = update.ScanoutId == 0 && _picture is { IsOn: true } ? _picture : null;
        if (update.ScanoutId != 0 || _counters.Width == 0 || (_picture != null && picture == null))
            _counters.CountDropped();
        string? clause = bytes == 0 ? null : Receive(update, picture);
        if (clause == null && _descriptors.Count > 0)
            clause = $"its request {GpuRequest.Update} came with {_descriptors.Count} descriptors";
        if (clause == null)
            _counters.CountUpdate(bytes);
        return clause;
    }

    /// <summary>Receives the pixels, as many whole lines at a time as there is room for.</summary>
    private string? Receive(in GpuUpdate update, Picture? picture)
    {
        int line = (int)update.Width * sizeof(uint);
        uint atOnce = (uint)(_room.Length / line);
        picture?.Begin();
        for (uint first = 0; first < update.Height; first += atOnce)
        {
            uint count = Math.Min(atOnce, update.Height - first);
            Span<byte> lines = _room.AsSpan(0, (int)count * line);
            if (_stream.ReceiveExactly(lines, _descriptors, -1) != 0)
                return $"it hung up in the middle of its request {GpuRequest.Update}";
            for (uint i = 0; picture != null && i < count; i++)
                picture.Put(update.X, (ulong)update.Y + first + i, MemoryMarshal.Cast<byte, uint>(lines.Slice((int)i * line, line)));
        }
        return null;
    }

    private string? Answer(GpuRequest request, ReadOnlySpan<byte> payload)
    {
        Span<byte> message = stackalloc byte[GpuHeader.Length + payload.Length];
        MemoryMarshal.Write(message, new GpuHeader((uint)request, GpuHeader.Reply, (uint)payload.Length));
        payload.CopyTo(message[GpuHeader.Length..]);
        return _stream.Send(message, default, _settings.Reply) switch
        {
            0 => null,
            LibC.ETIMEDOUT => "it does not read the answers to its requests",
            int error => $"the connection failed: {LibC.strerror(error)}",
        };
    }

    private void DropDescriptors()
    {
        foreach (FileDescriptor descriptor in _descriptors)
            descriptor.Dispose();
        _descriptors.Clear();
    }
}
