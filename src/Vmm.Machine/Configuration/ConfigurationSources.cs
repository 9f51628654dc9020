using Microsoft.Extensions.Configuration;
using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>
/// Reads files and the environment through Microsoft.Extensions.Configuration. Both have the same shape: a section is an object with
/// the option's keys (<c>"memory": {"size": "1G"}</c>, <c>VMM_MEMORY__SIZE=1G</c>), or a text in the command line's grammar
/// (<c>"memory": "size=1G"</c>, <c>VMM_MEMORY=size=1G</c>). Apart from the rest because the usual way in never comes here.
/// </summary>
internal static class ConfigurationSources
{
    /// <summary>A configuration larger than this is another file.</summary>
    private const long MaxFileBytes = 1 << 20;

    /// <summary>Adds a JSON file.</summary>
    public static void AddFile(VmConfigBuilder builder, string path)
    {
        byte[] json = ReadAll(path);
        AddJson(builder, path, json);
    }

    /// <summary>Adds JSON text, which came from <paramref name="path"/>.</summary>
    public static void AddJson(VmConfigBuilder builder, string path, byte[] json)
    {
        IConfigurationRoot root;
        try
        {
            using var stream = new MemoryStream(json, writable: false);
            root = new ConfigurationBuilder().AddJsonStream(stream).Build();
        }
        catch (Exception e) when (e is FormatException or InvalidDataException or System.Text.Json.JsonException or InvalidOperationException or ArgumentException)
        {
            string why = (e.InnerException ?? e).Message;
            throw VmmException.Configuration($"{path}: this is no configuration in JSON: {OneLine(why)}", e);
        }

        foreach (IConfigurationSection section in root.GetChildren())
            AddSection(builder, section, path, $"{path}: {Clean(section.Key)}", (_, key) => $"{path}: {Clean(section.Key)}.{Clean(key)}");
    }

    /// <summary>Adds the environment.</summary>
    public static void AddEnvironment(VmConfigBuilder builder)
    {
        IConfigurationRoot root = new ConfigurationBuilder().AddEnvironmentVariables(EnvironmentNames.Prefix).Build();
        foreach (IConfigurationSection section in root.GetChildren())
        {
            string name = EnvironmentNames.Prefix + Clean(section.Key);
            if (EnvironmentNames.IsConfiguration(name))
                AddSection(builder, section, "environment", name, (_, key) => $"{name}__{Clean(key)}");
        }
    }

    private static void AddSection(VmConfigBuilder builder, IConfigurationSection section, string source, string origin, Func<string, string, string> originOf)
    {
        SectionSchema schema = Find(section.Key) ?? throw UnknownSection(origin, section.Key);
        if (schema.Repeats)
        {
            AddItems(builder, schema, section, origin, source);
            return;
        }
        if (!string.IsNullOrEmpty(section.Value))
            builder.AddText(schema, origin, section.Value);

        bool any = false;
        foreach (IConfigurationSection member in section.GetChildren())
        {
            // Both would be taken, and one of them silently win.
            if (any && schema.Shape == OptionShape.Choice)
                throw VmmException.Configuration($"{origin}: it takes one of {string.Join(", ", schema.Keys)}, not several of them.");
            any = true;
            AddMember(builder, schema, member, originOf(origin, member.Key));
        }

        // An empty object says nothing, and that is fine; an empty text or null in place of a value is a mistake.
        if (!any && string.IsNullOrEmpty(section.Value) && (schema.Shape != OptionShape.Fields || section.Value is not null))
            throw VmmException.Configuration($"{origin}: it has no value; give it one or leave it out.");
    }

    /// <summary>A list of objects, or of texts in the command line's grammar; one text stands for a list of one.</summary>
    private static void AddItems(VmConfigBuilder builder, SectionSchema schema, IConfigurationSection section, string origin, string source)
    {
        if (!string.IsNullOrEmpty(section.Value))
            AddText(builder.AddItem(schema, source, origin), section.Value);
        int count = 0;
        foreach (IConfigurationSection item in section.GetChildren().OrderBy(item => int.TryParse(item.Key, out int at) ? at : -1))
        {
            if (item.Key != count.ToString(System.Globalization.CultureInfo.InvariantCulture))
                throw VmmException.Configuration($"{origin}: it takes a list, numbered from 0; there is {OptionGrammar.Show(item.Key)} in it instead of {count}.");
            count++;
            OptionFields fields = builder.AddItem(schema, source, $"{origin}[{item.Key}]");
            if (!string.IsNullOrEmpty(item.Value))
                AddText(fields, item.Value);
            foreach (IConfigurationSection member in item.GetChildren())
                fields.Set(Field(schema, member, $"{fields.Origin}.{Clean(member.Key)}"));
        }
    }

    private static void AddText(OptionFields fields, string text)
    {
        foreach (OptionField field in OptionGrammar.Parse(fields.Origin, text))
            fields.Set(field);
    }

    // Errors name the key themselves; for the environment the origin is the variable, for a file the section is enough.
    private static void AddMember(VmConfigBuilder builder, SectionSchema schema, IConfigurationSection member, string origin) =>
        builder.AddField(schema, Field(schema, member, origin));

    private static OptionField Field(SectionSchema schema, IConfigurationSection member, string origin)
    {
        string key = Canonical(member.Key);
        List<string>? items = null;
        foreach (IConfigurationSection item in member.GetChildren())
        {
            if (item.Value is null || item.Key != (items?.Count ?? 0).ToString())
                throw VmmException.Configuration($"{origin}: it takes a value, not an object.");
            (items ??= []).Add(item.Value);
        }

        string? value = member.Value;
        if (schema.Shape == OptionShape.Choice && value is not null && key is not ("file" or "socket"))
        {
            // {"pty": true} is how an object says the word alone.
            if (!bool.TryParse(value, out bool chosen) || !chosen)
                throw VmmException.Configuration($"{origin}: it takes no value; write true, or {schema.Name} as the text '{Clean(key)}'.");
            value = null;
        }

        return new OptionField(key, items is null ? value : null, items, origin);
    }

    private static SectionSchema? Find(string name)
    {
        string canonical = Canonical(name);
        foreach (SectionSchema schema in VmConfig.Sections)
        {
            if (schema.Name == canonical)
                return schema;
        }

        return null;
    }

    private static VmmException UnknownSection(string origin, string name)
    {
        string canonical = Canonical(name);
        foreach (SectionSchema schema in VmConfig.Sections)
        {
            if (schema.Keys.Contains(canonical) && schema.Shape == OptionShape.Fields)
                return VmmException.Configuration($"{origin}: there is no such section; {canonical} is a key of {schema.Name}.");
        }

        string[] known = [.. VmConfig.Sections.Select(schema => schema.Name)];
        string hint = Suggestion.DidYouMean(canonical, known);
        return VmmException.Configuration(
            $"{origin}: there is no such section.{(hint.Length > 0 ? hint : $" There are {string.Join(", ", known)}.")}");
    }

    /// <summary>Files and the environment may have capitals, and dashes where the option has them.</summary>
    private static string Canonical(string name) => name.ToLowerInvariant().Replace('-', '_');

    /// <summary>A name for a message: on one line, not too long.</summary>
    private static string Clean(string name) => OptionGrammar.Show(name)[1..^1];

    private static string OneLine(string text) => text.ReplaceLineEndings(" ");

    private static byte[] ReadAll(string path)
    {
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
            var content = new MemoryStream();
            var chunk = new byte[16 * 1024];
            int read;

            // Not by the file's length: a pipe or /dev/stdin has none.
            while ((read = file.Read(chunk)) > 0)
            {
                content.Write(chunk, 0, read);
                if (content.Length > MaxFileBytes)
                    throw VmmException.Configuration($"--config: {path} is larger than 1 MiB, so it is no configuration.");
            }

            return content.ToArray();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw VmmException.Configuration($"--config: cannot read {OptionGrammar.Show(path)}: {OneLine(e.Message)}", e);
        }
    }
}
