using System.Text;
using System.Text.Json;
using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Testing.Specification;

/// <summary>One direction in which a test is multiplied: an option of <c>vmm run</c> with several values, or several pieces of configuration.</summary>
/// <param name="Name">The option without its dashes, or any word for pieces of configuration.</param>
/// <param name="Values">The values, each with its label in the test's name.</param>
internal sealed record MatrixAxis(string Name, IReadOnlyList<MatrixValue> Values)
{
    /// <summary>More variants than this are a mistake.</summary>
    private const int MaximumVariants = 10_000;

    /// <summary>Reads <c>{"kernel": ["a", "b"], "machine": [{"name": "smp", "cpus": "boot=2"}]}</c>.</summary>
    /// <exception cref="VmmException">It is none, or names no option.</exception>
    internal static IEnumerable<MatrixAxis> Read(string origin, JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.Object)
            throw VmmException.Configuration($"{origin}: it takes an object with a list for each option; here is {TestDefinition.Kind(json)}.");
        foreach (JsonProperty axis in json.EnumerateObject())
        {
            string at = $"{origin}.{axis.Name}";
            List<MatrixValue> values = [.. TestDefinition.Items(at, axis.Value).Select((value, i) => ReadValue($"{at}[{i}]", axis.Name, value))];
            yield return Checked(at, axis.Name, values);
        }
    }

    /// <summary>Reads <c>--matrix kernel=[a,b],cpus=["boot=1","boot=2"]</c>.</summary>
    /// <exception cref="VmmException">It is none, or names no option.</exception>
    internal static IEnumerable<MatrixAxis> Parse(string origin, string text)
    {
        foreach (OptionField field in OptionGrammar.Parse(origin, text))
        {
            IReadOnlyList<string> items = field.Items ?? [field.Value ?? throw VmmException.Configuration($"{origin}: {field.Key} needs values; write {field.Key}=[A,B].")];
            OptionSchema option = Option(origin, field.Key);
            yield return Checked(origin, field.Key, [.. items.Select(item => new MatrixValue(item, builder => builder.AddOption(option, item)))]);
        }
    }

    /// <summary>Every combination of one value of each axis, the last axis fastest. One empty combination where there is no axis.</summary>
    /// <exception cref="VmmException">They are too many.</exception>
    internal static IEnumerable<IReadOnlyList<(string Axis, MatrixValue Value)>> Combine(string origin, IReadOnlyList<MatrixAxis> axes)
    {
        long count = 1;
        foreach (MatrixAxis axis in axes)
        {
            count *= axis.Values.Count;
            if (count > MaximumVariants)
                throw VmmException.Configuration($"{origin}: the matrix has more than {MaximumVariants} variants; leave values out.");
        }
        for (long variant = 0; variant < count; variant++)
        {
            var chosen = new (string, MatrixValue)[axes.Count];
            long rest = variant;
            for (int i = axes.Count - 1; i >= 0; i--)
            {
                chosen[i] = (axes[i].Name, axes[i].Values[(int)(rest % axes[i].Values.Count)]);
                rest /= axes[i].Values.Count;
            }
            yield return chosen;
        }
    }

    private static MatrixAxis Checked(string at, string name, List<MatrixValue> values) =>
        values.Count > 0 ? new MatrixAxis(name, values) : throw VmmException.Configuration($"{at}: the list is empty, so there would be no test; give it a value.");

    private static MatrixValue ReadValue(string at, string axis, JsonElement value)
    {
        if (value.ValueKind is JsonValueKind.String or JsonValueKind.Number)
        {
            string text = value.ValueKind == JsonValueKind.String ? value.GetString()! : value.GetRawText();
            OptionSchema option = Option(at, axis);
            return new MatrixValue(text, builder => builder.AddOption(option, text));
        }
        if (value.ValueKind != JsonValueKind.Object || !value.TryGetProperty("name", out JsonElement name))
            throw VmmException.Configuration($"{at}: it takes an option's text, or an object with a name and sections of a configuration; here is {TestDefinition.Kind(value)}.");
        byte[] json = WithoutName(value);
        return new MatrixValue(TestDefinition.Text(at + ".name", name), builder => builder.AddJson(at, json));
    }

    private static byte[] WithoutName(JsonElement value)
    {
        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream))
        {
            json.WriteStartObject();
            foreach (JsonProperty member in value.EnumerateObject())
            {
                if (member.Name != "name")
                    member.WriteTo(json);
            }
            json.WriteEndObject();
        }
        return stream.ToArray();
    }

    private static OptionSchema Option(string at, string name)
    {
        foreach (OptionSchema option in VmConfig.Options)
        {
            if (option.Name.AsSpan(2).SequenceEqual(name))
                return option;
        }
        string[] known = [.. VmConfig.Options.Select(option => option.Name[2..])];
        throw VmmException.Configuration($"{at}: {OptionGrammar.Show(name)} is no option of a machine.{Suggestion.DidYouMean(name, known)}");
    }
}

/// <summary>One value of an axis.</summary>
/// <param name="Label">What it is called in the test's name.</param>
/// <param name="Apply">Adds it to a configuration.</param>
internal sealed record MatrixValue(string Label, Action<VmConfigBuilder> Apply);
