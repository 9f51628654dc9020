using Vmm.Core.Memory;

namespace Vmm.Core.Boot;

/// <summary>One loading of a kernel: what all ways of loading share.</summary>
internal sealed class KernelLoad(BootRam ram, BootRequest request, IKernelFile kernel, IKernelFile? initramfs, byte[] commandLine)
{
    private const ulong MiB = 1 << 20;

    public BootRam Ram { get; } = ram;

    public GuestMemory Memory => Ram.Memory;

    public BootRequest Request { get; } = request;

    public IKernelFile Kernel { get; } = kernel;

    /// <summary>Checks the command line's length, before anything large is loaded.</summary>
    /// <param name="limit">The kernel's limit, in bytes without the NUL.</param>
    public void CheckCommandLine(ulong limit)
    {
        limit = Math.Min(limit, BootLayout.CommandLineCapacity - 1);
        if ((ulong)commandLine.Length > limit)
            throw VmmException.Configuration($"The kernel command line has {commandLine.Length} bytes and the {Kernel.Name} takes at most {limit}; shorten it (--cmdline).");
    }

    /// <summary>The error that a kernel's own range is not RAM.</summary>
    public VmmException NoRoom(ulong start, ulong length)
    {
        ulong end = start + Math.Min(length, ulong.MaxValue - start);
        return VmmException.Configuration(
            $"The {Kernel.Name} needs guest memory from 0x{start:x} to 0x{end:x}, which is not all RAM: the guest has {Memory.Size / MiB} MiB; " +
            (end <= 3ul << 30 ? $"give it at least {RoundUpMiB(end)} MiB (--memory size={RoundUpMiB(end)}M)." : "take a kernel that is made for lower addresses."));
    }

    /// <summary>
    /// Writes the command line, and loads the initramfs as high as it may be: up to a last address below 4 GiB, or above 4 GiB
    /// where that is allowed and there is no room below; never where the kernel is or will grow to.
    /// </summary>
    /// <returns>Where the initramfs is; length 0 without one.</returns>
    public (ulong Address, ulong Length) LoadRest(ulong kernelStart, ulong kernelEnd, ulong lastAddress, bool aboveFourGiB)
    {
        Memory.Write(BootLayout.CommandLine, commandLine);
        Memory.Write<byte>(BootLayout.CommandLine + (ulong)commandLine.Length, 0);
        if (initramfs == null)
            return (0, 0);

        ulong limit = Math.Min(lastAddress + 1, BootLayout.FourGiB);
        ulong? place = Ram.FindHighest(initramfs.Length, limit, kernelStart, kernelEnd);
        if (place == null && aboveFourGiB)
            place = Ram.FindHighest(initramfs.Length, ulong.MaxValue, kernelStart, kernelEnd);
        if (place is not { } address)
            throw DoesNotFit(initramfs, kernelEnd, limit, aboveFourGiB);
        KernelLoader.ReadInto(Memory, initramfs, 0, address, initramfs.Length);
        return (address, initramfs.Length);
    }

    private VmmException DoesNotFit(IKernelFile file, ulong kernelEnd, ulong limit, bool aboveFourGiB)
    {
        ulong firstFree = (kernelEnd + BootLayout.PageSize - 1) & ~(BootLayout.PageSize - 1);
        ulong room = Math.Min(limit, 3ul << 30);
        string advice;
        if (file.Length <= room && firstFree <= room - file.Length)
            advice = $"give it at least {RoundUpMiB(firstFree + file.Length)} MiB (--memory size={RoundUpMiB(firstFree + file.Length)}M)";
        else if (aboveFourGiB && file.Length < 1ul << 46)
            advice = $"give it at least {RoundUpMiB((4ul << 30) + file.Length)} MiB (--memory size={RoundUpMiB((4ul << 30) + file.Length)}M)";
        else
            advice = $"it is larger than the {(room > firstFree ? room - firstFree : 0) / MiB} MiB where this kernel can take one, so make it smaller";
        return VmmException.Configuration(
            $"The {file.Name} ({file.Length} bytes) does not fit in the guest's memory beside the kernel: the guest has {Memory.Size / MiB} MiB; {advice}.");
    }

    private static ulong RoundUpMiB(ulong bytes) => (bytes + MiB - 1) / MiB;
}
