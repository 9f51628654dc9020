using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>
/// Gathers a configuration from its sources. Add them in the order of their importance, the least first (file, environment, command
/// line): a later one replaces the keys that it names and leaves the others. Each section is read and checked once, at the end.
/// </summary>
public sealed class VmConfigBuilder
{
    private readonly List<OptionFields> _sections = [];

    // The items of sections that repeat, and where those of a section came from: a more important source replaces them all.
    private readonly List<OptionFields> _items = [];
    private readonly Dictionary<SectionSchema, string> _sourceOfItems = [];

    /// <summary>Adds one option of the command line.</summary>
    /// <exception cref="VmmException">Its text does not follow the option's grammar, or has an unknown key.</exception>
    public VmConfigBuilder AddOption(OptionSchema option, string text)
    {
        ArgumentNullException.ThrowIfNull(option);
        ArgumentNullException.ThrowIfNull(text);
        OptionFields fields = Schema(option.Section) is { Repeats: true } list ? AddItem(list, "options", option.Name) : FieldsOf(Schema(option.Section));
        if (option.Shape == OptionShape.Plain)
            fields.Set(new OptionField(option.Key ?? SectionSchema.Whole, text, null, option.Name));
        else
            AddText(fields, option.Name, text);
        return this;
    }

    /// <summary>Adds what a file or the environment says about a section in the command line's grammar.</summary>
    /// <exception cref="VmmException">The text does not follow the section's grammar, or has an unknown key.</exception>
    public VmConfigBuilder AddText(SectionSchema section, string origin, string text)
    {
        ArgumentNullException.ThrowIfNull(section);
        AddText(FieldsOf(section), origin, text);
        return this;
    }

    /// <summary>Adds one of a section that repeats, with nothing set yet.</summary>
    /// <param name="section">Which.</param>
    /// <param name="source">The file, the environment or the options: the first of a source takes the place of all of the one before.</param>
    /// <param name="origin">Where it was written, for errors.</param>
    public OptionFields AddItem(SectionSchema section, string source, string origin)
    {
        ArgumentNullException.ThrowIfNull(section);
        if (_sourceOfItems.TryGetValue(section, out string? earlier) && earlier != source)
            _items.RemoveAll(item => item.Schema == section);
        _sourceOfItems[section] = source;
        var fields = new OptionFields(section, origin);
        _items.Add(fields);
        return fields;
    }

    /// <summary>Adds one key of a section.</summary>
    /// <exception cref="VmmException">The section does not know the key.</exception>
    public VmConfigBuilder AddField(SectionSchema section, OptionField field)
    {
        ArgumentNullException.ThrowIfNull(section);
        FieldsOf(section).Set(field);
        return this;
    }

    /// <summary>Adds a JSON file, as <see cref="ConfigurationSources"/> reads it.</summary>
    /// <exception cref="VmmException">The file is not there, is no JSON, or has a key that nobody knows.</exception>
    public VmConfigBuilder AddFile(string path)
    {
        ConfigurationSources.AddFile(this, path);
        return this;
    }

    /// <summary>Adds JSON text in the shape of such a file.</summary>
    /// <param name="origin">Where it was written, for errors.</param>
    /// <param name="json">UTF-8.</param>
    /// <exception cref="VmmException">It is no JSON, or has a key that nobody knows.</exception>
    public VmConfigBuilder AddJson(string origin, byte[] json)
    {
        ArgumentNullException.ThrowIfNull(json);
        ConfigurationSources.AddJson(this, origin, json);
        return this;
    }

    /// <summary>Adds the environment's <c>VMM_*</c> variables; costs nothing but a look where there are none.</summary>
    /// <exception cref="VmmException">A variable names a section or key that nobody knows.</exception>
    public VmConfigBuilder AddEnvironment()
    {
        if (EnvironmentNames.Any())
            ConfigurationSources.AddEnvironment(this);
        return this;
    }

    /// <summary>Reads and checks every section.</summary>
    /// <exception cref="VmmException">A value is wrong, or values do not fit together.</exception>
    public VmConfig Build()
    {
        VmConfig config = BuildSections();
        config.CheckNames();
        if (!config.HasBackEnds || config.Memory.Shared)
            return config;
        if (FieldsOf(MemoryConfig.Section).Find("shared") is { } field)
            throw OptionFields.Error(field, "vhost-user back-ends need the guest's memory; leave shared=off out.");
        return config with { Memory = config.Memory with { Shared = true } };
    }

    private VmConfig BuildSections() => new()
    {
        Cpus = CpusConfig.From(FieldsOf(CpusConfig.Section)),
        Memory = MemoryConfig.From(FieldsOf(MemoryConfig.Section)),
        Payload = PayloadConfig.From(FieldsOf(PayloadConfig.Section)),
        Boot = BootConfig.From(FieldsOf(BootConfig.Section)),
        Serial = ConsoleConfig.From(FieldsOf(ConsoleConfig.SerialSection), ConsoleBackend.Tty),
        DebugConsole = ConsoleConfig.From(FieldsOf(ConsoleConfig.DebugSection), ConsoleBackend.Off),
        DebugExit = DebugExitConfig.From(FieldsOf(DebugExitConfig.Section)),
        Acpi = AcpiConfig.From(FieldsOf(AcpiConfig.Section)),
        OnReboot = RebootConfig.From(FieldsOf(RebootConfig.Section)),
        OnPanic = PanicConfig.From(FieldsOf(PanicConfig.Section)),
        Log = LogConfig.From(FieldsOf(LogConfig.Section)),
        Bus = BusConfig.From(FieldsOf(BusConfig.Section)),
        IoThreads = IoThreadsConfig.From(FieldsOf(IoThreadsConfig.Section)),
        Disks = Items(DiskConfig.Section, DiskConfig.From),
        Net = Items(NetConfig.Section, NetConfig.From),
        Pmem = Items(PmemConfig.Section, PmemConfig.From),
        Fs = Items(FsConfig.Section, FsConfig.From),
        Gpu = Items(GpuConfig.Section, GpuConfig.From),
        Vsock = VsockConfig.From(FieldsOf(VsockConfig.Section)),
        VhostUser = Items(VhostUserConfig.Section, VhostUserConfig.From),
        Console = ConsoleConfig.From(FieldsOf(ConsoleConfig.VirtioSection), ConsoleBackend.Off),
        Rng = RngConfig.From(FieldsOf(RngConfig.Section)),
        Balloon = BalloonConfig.From(FieldsOf(BalloonConfig.Section)),
        Watchdog = WatchdogConfig.From(FieldsOf(WatchdogConfig.Section)),
        Metrics = MetricsConfig.From(FieldsOf(MetricsConfig.Section)),
    };

    private ConfigList<T> Items<T>(SectionSchema schema, Func<OptionFields, T> from)
    {
        List<T>? items = null;
        foreach (OptionFields fields in _items)
        {
            if (fields.Schema == schema)
                (items ??= []).Add(from(fields));
        }

        return items is null ? ConfigList<T>.Empty : new ConfigList<T>([.. items]);
    }

    private static void AddText(OptionFields fields, string origin, string text)
    {
        if (fields.Schema.Shape == OptionShape.Plain)
        {
            fields.Set(new OptionField(SectionSchema.Whole, text, null, origin));
            return;
        }

        IReadOnlyList<OptionField> parsed = OptionGrammar.Parse(origin, text);
        if (fields.Schema.Shape == OptionShape.Choice && parsed.Count > 1)
            throw VmmException.Configuration($"{origin}: it takes one of {string.Join(", ", fields.Schema.Keys)}, not {parsed.Count} of them.");
        foreach (OptionField field in parsed)
            fields.Set(field);
    }

    private static SectionSchema Schema(string name)
    {
        foreach (SectionSchema schema in VmConfig.Sections)
        {
            if (schema.Name == name)
                return schema;
        }

        throw new ArgumentException($"There is no section {name}.", nameof(name));
    }

    private OptionFields FieldsOf(SectionSchema schema)
    {
        foreach (OptionFields fields in _sections)
        {
            if (fields.Schema == schema)
                return fields;
        }

        var added = new OptionFields(schema);
        _sections.Add(added);
        return added;
    }
}
