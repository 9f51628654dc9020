using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--pmem file=PATH,…</c>: a file as the guest's persistent memory, which it can mount with DAX.</summary>
/// <param name="File">The file.</param>
/// <param name="Size">Bytes of it; null for all. A multiple of 2 MiB.</param>
/// <param name="DiscardWrites">What the guest writes is not written to the file, and is lost at the end.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record PmemConfig(string File, ulong? Size, bool DiscardWrites, VirtioOptions Virtio) : IConfigSection
{
    private const ulong Unit = 2 * ByteSize.MiB;

    /// <summary>The section in files and the environment: a list.</summary>
    public static readonly SectionSchema Section = new("pmem", ["file", "size", "discard_writes", .. VirtioOptions.Keys], OptionShape.Fields, Repeats: true);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--pmem", "file=PATH[,size=SIZE][,discard_writes=on|off]" + VirtioOptions.Syntax,
        "A file as persistent memory (pmem0, …), which the guest can mount with DAX. Give it once for each.",
        "pmem", null, OptionShape.Fields, ["file=", "size=", "discard_writes=on", .. VirtioOptions.Words]);

    /// <summary>Reads and checks one.</summary>
    /// <exception cref="VmmException">A value is wrong or the file is missing.</exception>
    public static PmemConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        string file = fields.Path("file") ?? throw VmmException.Configuration($"{fields.Origin}: there is no file; write file=PATH.");
        ulong? size = fields.Find("size") is null ? null : fields.Size("size", 0, Unit, MemoryConfig.Most);
        if (size is { } bytes && bytes % Unit != 0)
            throw OptionFields.Error(fields.Find("size")!, $"'size={ByteSize.Format(bytes)}' is not a multiple of 2M, the unit of persistent memory.");
        return new PmemConfig(file, size, fields.Flag("discard_writes", false), VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Text("file", File);
        writer.Size("size", Size);
        writer.Flag("discard_writes", DiscardWrites);
        Virtio.WriteTo(writer);
    }
}
