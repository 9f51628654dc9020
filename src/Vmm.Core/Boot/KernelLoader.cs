using System.Text;
using Vmm.Core.Memory;

namespace Vmm.Core.Boot;

/// <summary>
/// Puts a kernel, its initramfs, its command line and what it is told about the machine into guest memory. File contents go
/// straight from the file into guest memory; only headers are read by the host, and nothing in a file is trusted.
/// </summary>
public static class KernelLoader
{
    private const int ReadChunk = 64 << 20;

    /// <summary>Loads a kernel, ready to be entered.</summary>
    /// <param name="memory">The guest's memory; all zero, unless the request says that it is not.</param>
    /// <param name="request">What to load, and how.</param>
    /// <exception cref="VmmException">A file is missing, malformed, of the wrong kind or does not fit; memory may be partly written then.</exception>
    public static LoadedKernel Load(GuestMemory memory, BootRequest request)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ArgumentNullException.ThrowIfNull(request);
        using DiskKernelFile kernel = DiskKernelFile.Open(request.KernelPath, "kernel");
        using DiskKernelFile? initramfs = request.InitramfsPath == null ? null : DiskKernelFile.Open(request.InitramfsPath, "initramfs");
        return Load(memory, request, kernel, initramfs);
    }

    /// <summary>The same with files that are open already.</summary>
    internal static LoadedKernel Load(GuestMemory memory, BootRequest request, IKernelFile kernel, IKernelFile? initramfs)
    {
        if (request.E820.Count is 0 or > BootLayout.MaximumMemoryMapEntries)
            throw new ArgumentException($"The memory map needs 1 to {BootLayout.MaximumMemoryMapEntries} entries.", nameof(request));
        var load = new KernelLoad(new BootRam(memory, request.E820), request, kernel, initramfs, CommandLineBytes(request.CommandLine));
        BootProtocol protocol = request.Protocol;
        bool isElf = ElfImage.Claims(kernel);
        if (isElf && (protocol is BootProtocol.Auto or BootProtocol.Pvh or BootProtocol.Linux64))
            return ElfLoader.Load(load, ElfImage.Parse(kernel), protocol);
        if (isElf)
            throw VmmException.Configuration($"The {kernel.Name} is an ELF file and not a bzImage; boot it by PVH or its 64-bit entry.");
        if (!BzImageHeader.Claims(kernel))
            throw NoKernel(kernel);

        BzImageHeader header = BzImageHeader.Parse(kernel);
        if (protocol == BootProtocol.BzImage)
            return BzImageLoader.Load(load, header, null);
        load.CheckCommandLine(header.CommandLineSize);
        if (UnpackedLoader.TryLoad(load, header, protocol, out string reason) is { } loaded)
            return loaded;
        // Who asked for a way gets that or an error; the default takes the slower way and says so.
        return protocol == BootProtocol.Auto ? BzImageLoader.Load(load, header, reason) : throw VmmException.Configuration(reason);
    }

    /// <summary>Copies a range of a file into guest memory that the caller knows to be there, without a buffer in between.</summary>
    internal static void ReadInto(GuestMemory memory, IKernelFile file, ulong offset, ulong address, ulong length)
    {
        while (length > 0)
        {
            int chunk = (int)Math.Min(length, ReadChunk);
            if (!memory.TryGetSpan(address, chunk, out Span<byte> span))
                throw VmmException.Configuration($"Cannot load the {file.Name} at guest address 0x{address:x}: there is no memory there; give the guest more (--memory size=).");
            file.Read(offset, span);
            offset += (ulong)chunk;
            address += (ulong)chunk;
            length -= (ulong)chunk;
        }
    }

    private static byte[] CommandLineBytes(string commandLine)
    {
        foreach (char c in commandLine)
        {
            if (c == '\0')
                throw VmmException.Configuration("The kernel command line contains a NUL character, which would end it; remove it (--cmdline).");
            if (c is '\n' or '\r')
                throw VmmException.Configuration("The kernel command line contains a line break; put it on one line (--cmdline).");
        }
        return Encoding.UTF8.GetBytes(commandLine);
    }

    private static VmmException NoKernel(IKernelFile kernel)
    {
        Span<byte> head = stackalloc byte[(int)Math.Min(kernel.Length, 4)];
        kernel.Read(0, head);
        string hint = head switch
        {
            [0x1F, 0x8B, ..] => " It is a gzip file: unpack it first.",
            [0x28, 0xB5, 0x2F, 0xFD] => " It is a zstd file: unpack it first.",
            [0xFD, (byte)'7', (byte)'z', (byte)'X'] => " It is an xz file: unpack it first.",
            [(byte)'M', (byte)'Z', ..] => " It is an EFI program without a Linux setup header, perhaps of another machine.",
            _ => "",
        };
        return VmmException.Configuration($"The {kernel.Name} is neither a bzImage nor an ELF file (it begins with {Convert.ToHexString(head)}, {kernel.Length} bytes long); give a Linux kernel for x86-64.{hint}");
    }
}
