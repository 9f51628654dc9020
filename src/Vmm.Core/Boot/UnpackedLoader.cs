namespace Vmm.Core.Boot;

/// <summary>
/// Unpacks a bzImage's payload on the host and loads the vmlinux in it. The guest's own unpacker does not run, so neither does
/// what it does besides: choosing a random address (KASLR). The relocations that it would use follow the ELF file in the payload
/// and are ignored.
/// </summary>
/// <remarks>
/// The payload is unpacked into the guest's memory so that the first segment (mostly, nearly all of them) comes to lie where it
/// belongs; the rest is moved, and what is left between is zeroed. That saves a second copy of the kernel in host memory, and its
/// page faults. Where it cannot be done so, it is unpacked into memory of this process and copied.
/// </remarks>
internal static class UnpackedLoader
{
    /// <summary>Loads it, or says why it cannot be (a whole sentence, the guest's memory being as it was then).</summary>
    public static LoadedKernel? TryLoad(KernelLoad load, BzImageHeader header, BootProtocol protocol, out string reason)
    {
        if (KernelPayload.Find(load.Kernel, header, out reason) is not { } payload)
        {
            reason = Sentence(load, reason);
            return null;
        }
        ElfImage? image = Unpack(load, header, payload, protocol, out reason);
        if (image == null)
        {
            reason = Sentence(load, reason);
            return null;
        }
        BootProtocol entry = protocol == BootProtocol.Pvh ? BootProtocol.Pvh : BootProtocol.Linux64;
        string what = $"kernel unpacked from a {Name(payload.Compression)} bzImage";
        return ElfLoader.Finish(load, image, header, entry, what, protocol == BootProtocol.Pvh ? BootProtocol.Pvh : BootProtocol.Unpacked);
    }

    private static unsafe ElfImage? Unpack(
        KernelLoad load, BzImageHeader header, KernelPayload payload, BootProtocol protocol, out string reason)
    {
        ulong length = payload.UnpackedLength;
        ulong place = header.PreferredAddress - BootLayout.UsualFirstSegmentOffset;
        if (header.PreferredAddress >= BootLayout.HighMemoryStart + BootLayout.UsualFirstSegmentOffset
            && load.Ram.Contains(place, length)
            && load.Memory.TryGetSpan(place, (int)length, out Span<byte> span))
        {
            // Safe: guest memory does not move, and the span covers the whole range.
            fixed (byte* image = span)
                return UnpackInPlace(load, header, payload, protocol, place, image, out reason);
        }
        using var buffer = new NativeBuffer(length);
        if (payload.Unpack(load.Kernel, buffer.Pointer) is { } failure)
        {
            reason = failure;
            return null;
        }
        return Copy(load, header, protocol, buffer.Pointer, length, out reason);
    }

    private static unsafe ElfImage? UnpackInPlace(
        KernelLoad load, BzImageHeader header, KernelPayload payload, BootProtocol protocol, ulong place, byte* memory, out string reason)
    {
        ulong length = payload.UnpackedLength;
        bool done = false;
        try
        {
            if (payload.Unpack(load.Kernel, memory) is { } failure)
            {
                reason = failure;
                return null;
            }
            if (Parse(load, header, protocol, memory, length, out reason) is not { } image)
                return null;
            if (CanMoveUpwards(image, place))
            {
                MoveSegments(load, image, place, length);
                done = true;
                return image;
            }
            using var copy = new NativeBuffer(length);
            // Safe: both have this length.
            Buffer.MemoryCopy(memory, copy.Pointer, length, length);
            ElfLoader.Clear(load, place, place + length);
            done = true;
            return Copy(load, header, protocol, copy.Pointer, length, out reason);
        }
        finally
        {
            // Whatever else is loaded then may count on zeroed memory.
            if (!done)
                ElfLoader.Clear(load, place, place + length);
        }
    }

    private static unsafe ElfImage? Copy(
        KernelLoad load, BzImageHeader header, BootProtocol protocol, byte* bytes, ulong length, out string reason)
    {
        if (Parse(load, header, protocol, bytes, length, out reason) is not { } image)
            return null;
        var source = new NativeKernelFile(load.Kernel.Name, bytes, length);
        foreach (ElfSegment segment in image.Segments)
        {
            KernelLoader.ReadInto(load.Memory, source, segment.Offset, segment.Address, segment.FileLength);
            if (load.Request.MemoryIsDirty)
                ElfLoader.Clear(load, segment.Address + segment.FileLength, segment.End);
        }
        return image;
    }

    private static unsafe ElfImage? Parse(
        KernelLoad load, BzImageHeader header, BootProtocol protocol, byte* bytes, ulong length, out string reason)
    {
        reason = "";
        try
        {
            ElfImage image = ElfImage.Parse(new NativeKernelFile($"payload of the {load.Kernel.Name}", bytes, length));
            ElfLoader.RequireRam(load, image);
            if (protocol == BootProtocol.Pvh)
                _ = ElfLoader.Resolve(load.Kernel, image, protocol);
            // Only what the packed kernel would use, too: a header that lies must not place segments elsewhere.
            if (image.Start < header.PreferredAddress)
            {
                reason = $"its payload would be loaded at 0x{image.Start:x}, below its pref_address 0x{header.PreferredAddress:x}";
                return null;
            }
            return image;
        }
        catch (VmmException e)
        {
            reason = char.ToLowerInvariant(e.Message[0]) + e.Message[1..].TrimEnd('.');
            return null;
        }
    }

    /// <summary>
    /// Whether the segments, moved one after the other by rising address from the image at a place, never overwrite one that is
    /// still to be moved. (A move onto itself overwrites nothing.)
    /// </summary>
    private static bool CanMoveUpwards(ElfImage image, ulong place)
    {
        for (int i = 0; i < image.Segments.Count; i++)
        {
            ElfSegment target = image.Segments[i];
            for (int j = i + 1; j < image.Segments.Count; j++)
            {
                ulong source = place + image.Segments[j].Offset;
                if (target.Address < source + image.Segments[j].FileLength && source < target.Address + target.FileLength)
                    return false;
            }
        }
        return true;
    }

    private static void MoveSegments(KernelLoad load, ElfImage image, ulong place, ulong length)
    {
        foreach (ElfSegment segment in image.Segments)
        {
            ulong source = place + segment.Offset;
            int bytes = (int)segment.FileLength;
            if (source != segment.Address
                && load.Memory.TryGetSpan(source, bytes, out Span<byte> from)
                && load.Memory.TryGetSpan(segment.Address, bytes, out Span<byte> to))
                from.CopyTo(to);
        }

        // What the image covered and no segment does is zeroed again: the ELF header, gaps, BSS and relocations.
        ulong at = place;
        ulong end = place + length;
        foreach (ElfSegment segment in image.Segments)
        {
            ElfLoader.Clear(load, at, Math.Min(end, segment.Address));
            at = Math.Max(at, segment.Address + segment.FileLength);
            if (load.Request.MemoryIsDirty)
            {
                ElfLoader.Clear(load, segment.Address + segment.FileLength, segment.End);
                at = Math.Max(at, segment.End);
            }
        }
        ElfLoader.Clear(load, at, end);
    }

    private static string Sentence(KernelLoad load, string reason) => $"Cannot unpack the {load.Kernel.Name} on the host: {reason}.";

    private static string Name(PayloadCompression compression) => compression switch
    {
        PayloadCompression.Gzip => "gzip",
        PayloadCompression.Xz => "xz",
        PayloadCompression.Zstd => "zstd",
        _ => "lz4",
    };
}
