namespace Vmm.Core.Boot;

/// <summary>Loads an ELF kernel and makes it ready for its PVH or its 64-bit entry.</summary>
internal static class ElfLoader
{
    /// <summary>Loads from the file, for PVH, Linux64, or (Auto) PVH where the kernel has it.</summary>
    public static LoadedKernel Load(KernelLoad load, ElfImage image, BootProtocol protocol)
    {
        protocol = Resolve(load.Kernel, image, protocol);
        CheckCommandLine(load, image, null, protocol);
        RequireRam(load, image);
        foreach (ElfSegment segment in image.Segments)
        {
            KernelLoader.ReadInto(load.Memory, load.Kernel, segment.Offset, segment.Address, segment.FileLength);
            if (load.Request.MemoryIsDirty)
                Clear(load, segment.Address + segment.FileLength, segment.End);
        }
        return Finish(load, image, null, protocol, "ELF kernel", null);
    }

    /// <summary>Settles which entry is taken.</summary>
    /// <exception cref="VmmException">PVH is asked for, and the kernel has no such entry.</exception>
    public static BootProtocol Resolve(IKernelFile kernel, ElfImage image, BootProtocol protocol)
    {
        if (protocol == BootProtocol.Auto)
            return image.PvhEntry == null ? BootProtocol.Linux64 : BootProtocol.Pvh;
        if (protocol == BootProtocol.Pvh && image.PvhEntry == null)
            throw VmmException.Configuration($"The {kernel.Name} has no PVH entry (it was built without CONFIG_PVH); boot it by its 64-bit entry.");
        return protocol;
    }

    /// <summary>Checks the command line against the kernel's limit, as far as that is known.</summary>
    public static void CheckCommandLine(KernelLoad load, ElfImage image, BzImageHeader? header, BootProtocol protocol)
    {
        bool linux = protocol != BootProtocol.Pvh || image.IsLinux;
        load.CheckCommandLine(header?.CommandLineSize ?? (ulong)(linux ? BootLayout.LinuxCommandLineLimit : BootLayout.CommandLineCapacity - 1));
    }

    /// <summary>Checks that all segments are in RAM that the entered kernel can reach (below 4 GiB).</summary>
    public static void RequireRam(KernelLoad load, ElfImage image)
    {
        foreach (ElfSegment segment in image.Segments)
        {
            if (segment.End > BootLayout.FourGiB || !load.Ram.Contains(segment.Address, segment.MemoryLength))
                throw load.NoRoom(segment.Address, segment.MemoryLength);
        }
    }

    /// <summary>Zeroes a range that is RAM.</summary>
    public static void Clear(KernelLoad load, ulong start, ulong end)
    {
        while (start < end)
        {
            int chunk = (int)Math.Min(end - start, 1 << 30);
            if (load.Memory.TryGetSpan(start, chunk, out Span<byte> span))
                span.Clear();
            start += (ulong)chunk;
        }
    }

    /// <summary>Loads what comes beside a kernel that is in place, and says how to enter it.</summary>
    public static LoadedKernel Finish(
        KernelLoad load, ElfImage image, BzImageHeader? header, BootProtocol protocol, string what, BootProtocol? reported)
    {
        bool pvh = protocol == BootProtocol.Pvh;
        ulong end = header == null ? image.End : Math.Max(image.End, header.PreferredAddress + header.InitSize);
        // Linux takes a PVH module's address in 32 bits.
        (ulong Address, ulong Length) initramfs = load.LoadRest(
            image.Start, end, header?.InitramfsAddressMax ?? (BootLayout.FourGiB - 1), !pvh && (header?.AboveFourGiB ?? true));
        if (pvh)
            PvhStartInfo.Write(load.Memory, load.Request, initramfs);
        else
            ZeroPage.Write(load.Memory, load.Request, header, image.Start, initramfs);
        BootEntry entry = pvh
            ? new BootEntry(BootEntryMode.Protected32, image.PvhEntry!.Value, BootLayout.HvmStartInfo)
            : new BootEntry(BootEntryMode.Long64, image.Entry, BootLayout.ZeroPage);
        return new LoadedKernel(
            entry, reported ?? protocol, $"{what} at 0x{image.Start:x}-0x{image.End:x}, {(pvh ? "PVH" : "64-bit")} entry 0x{entry.InstructionPointer:x}", null)
        {
            KernelStart = image.Start,
            KernelEnd = end,
            InitramfsAddress = initramfs.Address,
            InitramfsLength = initramfs.Length,
        };
    }
}
