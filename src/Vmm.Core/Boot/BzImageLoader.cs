namespace Vmm.Core.Boot;

/// <summary>Loads a bzImage as it is, for the guest to unpack (boot.rst, "64-bit Boot Protocol").</summary>
internal static class BzImageLoader
{
    public static LoadedKernel Load(KernelLoad load, BzImageHeader header, string? fallbackReason)
    {
        load.CheckCommandLine(header.CommandLineSize);
        ulong address = Place(load, header);
        KernelLoader.ReadInto(load.Memory, load.Kernel, header.KernelOffset, address, header.KernelLength);
        ulong end = address + header.InitSize;
        (ulong Address, ulong Length) initramfs = load.LoadRest(address, end, header.InitramfsAddressMax, header.AboveFourGiB);
        ZeroPage.Write(load.Memory, load.Request, header, address, initramfs);
        return new LoadedKernel(
            new BootEntry(BootEntryMode.Long64, BzImageHeader.EntryAt(address), BootLayout.ZeroPage),
            BootProtocol.BzImage,
            $"bzImage (boot protocol {header.Version >> 8}.{header.Version & 0xFF}) at 0x{address:x}",
            fallbackReason)
        {
            KernelStart = address,
            KernelEnd = end,
            InitramfsAddress = initramfs.Address,
            InitramfsLength = initramfs.Length,
        };
    }

    private static ulong Place(KernelLoad load, BzImageHeader header)
    {
        // Entered with 4 GiB identity-mapped, so it must lie below.
        bool reachable = header.PreferredAddress + header.InitSize <= BootLayout.FourGiB;
        if (reachable && load.Ram.Contains(header.PreferredAddress, header.InitSize))
            return header.PreferredAddress;
        if (header.Relocatable && load.Ram.FindLowest(header.InitSize, header.Alignment) is { } lowest
            && lowest + header.InitSize <= BootLayout.FourGiB)
            return lowest;
        throw load.NoRoom(header.PreferredAddress, header.InitSize);
    }
}
