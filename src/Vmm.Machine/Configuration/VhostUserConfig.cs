using System.Globalization;
using System.Numerics;
using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--vhost-user type=NAME|ID,socket=PATH,…</c>: any virtio device that an external back-end serves.</summary>
/// <param name="Type">The device type's number (VIRTIO 1.3 §5).</param>
/// <param name="QueueSizes">The size of each queue: powers of two from 2 to 32768.</param>
/// <param name="ConfigSize">Bytes of its configuration space: 0 to 256.</param>
/// <param name="BackEnd">Where it is.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record VhostUserConfig(int Type, ConfigList<int> QueueSizes, int ConfigSize, BackEndOptions BackEnd, VirtioOptions Virtio) : IConfigSection
{
    private const int MostQueues = 256;
    private const int MostConfig = 256;

    // What drivers expect: the number of queues, sizes that back-ends take, the bytes of the configuration that they read.
    private static readonly Known[] s_types =
    [
        new("net", 1, [256, 256], 12), new("block", 2, [128], 60), new("console", 3, [64, 64], 12), new("rng", 4, [64], 0),
        new("scsi", 8, [128, 128, 128], 36), new("gpu", 16, [256, 16], 16), new("input", 18, [64, 64], 136), new("vsock", 19, [128, 128, 128], 8),
        new("crypto", 20, [128, 128], 56), new("sound", 25, [64, 64, 64, 64], 12), new("fs", 26, [1024, 1024], 44), new("i2c", 34, [64], 0),
        new("can", 36, [64, 64, 64], 4), new("gpio", 41, [64, 64], 8), new("media", 48, [256, 256], 40),
    ];

    /// <summary>The section in files and the environment: a list.</summary>
    public static readonly SectionSchema Section = new(
        "vhost_user", ["type", "queue_sizes", "config_size", .. BackEndOptions.Keys, .. VirtioOptions.Keys], OptionShape.Fields, Repeats: true);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--vhost-user", "type=NAME|ID[,queue_sizes=[N,…]][,config_size=N]" + BackEndOptions.Syntax + VirtioOptions.Syntax,
        $"Any device that a vhost-user back-end serves: {string.Join(", ", s_types.Select(type => type.Name))}, or a number. Give it once for each.",
        "vhost_user", null, OptionShape.Fields,
        [.. s_types.Select(type => $"type={type.Name}"), "queue_sizes=[", "config_size=", .. BackEndOptions.Words, .. VirtioOptions.Words]);

    /// <summary>The name of a type; its number where it has none here.</summary>
    public static string NameOf(int type) =>
        Array.Find(s_types, known => known.Number == type)?.Name ?? type.ToString(CultureInfo.InvariantCulture);

    /// <summary>Reads and checks one.</summary>
    /// <exception cref="VmmException">A value is wrong, or something is missing.</exception>
    public static VhostUserConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        int type = TypeOf(fields);
        Known? known = Array.Find(s_types, candidate => candidate.Number == type);
        ConfigList<int> sizes = SizesOf(fields);
        if (sizes.Count == 0)
        {
            sizes = known is null
                ? throw VmmException.Configuration($"{fields.Origin}: how many queues a device of type {type} has is not known; write queue_sizes=[N,…].")
                : new ConfigList<int>(known.QueueSizes);
        }
        return new VhostUserConfig(type, sizes, fields.Number("config_size", 0, MostConfig) ?? known?.ConfigSize ?? 0, BackEndOptions.From(fields), VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Text("type", NameOf(Type));
        writer.List("queue_sizes", [.. QueueSizes.Select(size => size.ToString(CultureInfo.InvariantCulture))]);
        writer.Number("config_size", ConfigSize);
        BackEnd.WriteTo(writer);
        Virtio.WriteTo(writer);
    }

    private static int TypeOf(OptionFields fields)
    {
        string text = fields.Text("type", null)
            ?? throw VmmException.Configuration($"{fields.Origin}: there is no type; write type=NAME or the number of a device type.");
        if (Array.Find(s_types, known => known.Name == text) is { } found)
            return found.Number;
        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number is > 0 and <= 63)
            return number;
        throw OptionFields.Error(
            fields.Find("type")!,
            $"{OptionGrammar.Show($"type={text}")} is no device type; those are 1 to 63, or {string.Join(", ", s_types.Select(known => known.Name))}.{Suggestion.DidYouMean(text, [.. s_types.Select(known => known.Name)])}");
    }

    private static ConfigList<int> SizesOf(OptionFields fields)
    {
        var sizes = new List<int>();
        foreach (string item in fields.Items("queue_sizes"))
        {
            if (!int.TryParse(item, NumberStyles.None, CultureInfo.InvariantCulture, out int size) || size is < 2 or > 32768 || !BitOperations.IsPow2(size))
                throw OptionFields.Error(fields.Find("queue_sizes")!, $"{OptionGrammar.Show(item)} is no size of a queue; those are powers of two from 2 to 32768.");
            sizes.Add(size);
        }
        if (sizes.Count > MostQueues)
            throw OptionFields.Error(fields.Find("queue_sizes")!, $"{sizes.Count} queues are more than the protocol has numbers for, {MostQueues}.");
        return sizes.Count == 0 ? ConfigList<int>.Empty : new ConfigList<int>([.. sizes]);
    }

    private sealed record Known(string Name, int Number, int[] QueueSizes, int ConfigSize);
}
