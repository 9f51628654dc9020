using Vmm.Core;
using Vmm.Virtio.Transport;

namespace Vmm.Machine.Configuration;

/// <summary>What every virtio device's option has: <c>id=NAME,bus=pci|mmio,packed=on|off</c>.</summary>
/// <param name="Id">The device's name; null for one made of its kind and number.</param>
/// <param name="Bus">Its bus; null for the machine's default.</param>
/// <param name="Packed">Whether packed virtqueues are offered (VIRTIO 1.3 §2.8).</param>
public sealed record VirtioOptions(string? Id = null, VirtioBus? Bus = null, bool Packed = false)
{
    /// <summary>The longest name: it goes into logs, metrics and thread names.</summary>
    public const int MaxIdLength = 64;

    internal static readonly string[] Keys = ["id", "bus", "packed"];

    internal static readonly string[] Words = ["id=", "bus=pci", "bus=mmio", "packed=on", "packed=off"];

    internal const string Syntax = "[,id=NAME][,bus=pci|mmio][,packed=on|off]";

    internal static VirtioOptions From(OptionFields fields)
    {
        string? id = fields.Text("id", null);
        if (id is not null && (id.Length is 0 or > MaxIdLength || id.AsSpan().IndexOfAnyExcept(s_idCharacters) >= 0))
            throw OptionFields.Error(fields.Find("id")!, $"{OptionGrammar.Show($"id={id}")} is no name; use 1 to {MaxIdLength} letters, digits, dots, dashes and underscores.");
        VirtioBus? bus = fields.Find("bus") is null ? null : fields.Word("bus", VirtioBus.Pci, BusConfig.Words);
        return new VirtioOptions(id, bus, fields.Flag("packed", false));
    }

    internal void WriteTo(IConfigWriter writer)
    {
        writer.Text("id", Id);
        writer.Text("bus", BusConfig.NameOf(Bus));
        writer.Flag("packed", Packed);
    }

    private static readonly System.Buffers.SearchValues<char> s_idCharacters =
        System.Buffers.SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
}
