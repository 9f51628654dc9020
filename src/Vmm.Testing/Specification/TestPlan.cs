using System.Text.Json;
using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Testing.Specification;

/// <summary>What the command line says of tests, besides files.</summary>
public sealed record TestPlanOptions
{
    /// <summary>Changes every test's specification, after its file.</summary>
    public Func<TestSpec, TestSpec> Change { get; init; } = static spec => spec;

    /// <summary>Adds options to every test's machine, after its file, the environment and its matrix.</summary>
    public Action<VmConfigBuilder> Configure { get; init; } = static _ => { };

    /// <summary>A matrix for every test, as options say it: <c>kernel=[a,b]</c>.</summary>
    public IReadOnlyList<string> Matrix { get; init; } = [];

    /// <summary>Tags of which a test must have one; empty for all tests.</summary>
    public IReadOnlyList<string> Tags { get; init; } = [];

    /// <summary>Names of which a test must have one, with <c>*</c> for anything; empty for all tests.</summary>
    public IReadOnlyList<string> Only { get; init; } = [];

    /// <summary>The name of the test that is on the command line alone.</summary>
    public string Name { get; init; } = "boot";

    /// <summary>Gives the command that repeats a test.</summary>
    public Func<string, string?, string> Repeat { get; init; } = static (_, _) => "vmm test";
}

/// <summary>Reads test files and makes the list of tests to run.</summary>
public static class TestPlan
{
    /// <summary>A file larger than this is another file.</summary>
    private const long MaximumFile = 4 << 20;

    /// <summary>Makes the list; every configuration in it is checked.</summary>
    /// <param name="paths">Files, and directories of which every <c>*.json</c> is one; empty for the one test that the options describe.</param>
    /// <param name="options">The command line.</param>
    /// <exception cref="VmmException">A file cannot be read, or says something that cannot be; or no test is left.</exception>
    public static IReadOnlyList<TestCase> Make(IReadOnlyList<string> paths, TestPlanOptions options)
    {
        ArgumentNullException.ThrowIfNull(paths);
        ArgumentNullException.ThrowIfNull(options);
        List<MatrixAxis> matrix = [.. options.Matrix.SelectMany(text => MatrixAxis.Parse("--matrix", text))];
        List<TestCase> all = [];
        if (paths.Count == 0)
            all.AddRange(Multiply("command line", null, [], options.Name, "", matrix, options));
        foreach (string file in paths.SelectMany(Files))
            all.AddRange(ReadFile(file, matrix, options));
        RequireUnique(all);
        List<TestCase> chosen = [.. all.Where(test => IsChosen(test, options))];
        if (chosen.Count == 0)
            throw VmmException.Configuration(all.Count == 0 ? "there is no test in what was named; name a file with tests." : $"none of {all.Count} tests has the tags and names that were asked for; vmm test --list shows them.");
        return chosen;
    }

    private static IEnumerable<string> Files(string path)
    {
        if (!Directory.Exists(path))
            return [path];
        string[] files = Directory.GetFiles(path, "*.json", SearchOption.AllDirectories);
        if (files.Length == 0)
            throw VmmException.Configuration($"{path}: there is no *.json in this directory, so no tests.");
        Array.Sort(files, StringComparer.Ordinal);
        return files;
    }

    private static IEnumerable<TestCase> ReadFile(string path, List<MatrixAxis> matrix, TestPlanOptions options)
    {
        using JsonDocument document = Parse(path);
        JsonElement root = document.RootElement;
        if (root.ValueKind == JsonValueKind.Array)
            return [.. Tests(path, null, root, matrix, options)];
        if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("tests", out JsonElement tests))
            return [.. One(path, null, TestDefinition.Read(path, root, isDefault: false), Path.GetFileNameWithoutExtension(path), matrix, options)];
        TestDefinition? defaults = null;
        foreach (JsonProperty member in root.EnumerateObject())
        {
            if (member.Name == "defaults")
                defaults = TestDefinition.Read($"{path}: defaults", member.Value, isDefault: true);
            else if (member.Name != "tests")
                throw VmmException.Configuration($"{path}: there is no key {OptionGrammar.Show(member.Name)} beside tests; there are defaults and tests.");
        }
        return [.. Tests(path, defaults, tests, matrix, options)];
    }

    private static IEnumerable<TestCase> Tests(string path, TestDefinition? defaults, JsonElement tests, List<MatrixAxis> matrix, TestPlanOptions options)
    {
        int number = 0;
        foreach (JsonElement json in TestDefinition.Items($"{path}: tests", tests))
        {
            TestDefinition test = TestDefinition.Read($"{path}: tests[{number}]", json, isDefault: false);
            number++;
            foreach (TestCase made in One(path, defaults, test, $"{Path.GetFileNameWithoutExtension(path)}-{number}", matrix, options))
                yield return made;
        }
    }

    private static IEnumerable<TestCase> One(string path, TestDefinition? defaults, TestDefinition test, string name, List<MatrixAxis> matrix, TestPlanOptions options)
    {
        List<MatrixAxis> axes = [.. defaults?.Matrix ?? [], .. test.Matrix, .. matrix];
        return Multiply(path, defaults, [test], test.Name ?? name, test.Origin, axes, options);
    }

    private static IEnumerable<TestCase> Multiply(
        string source, TestDefinition? defaults, IReadOnlyList<TestDefinition> definitions, string name, string origin, IReadOnlyList<MatrixAxis> axes, TestPlanOptions options)
    {
        var spec = new TestSpec();
        List<string> tags = [];
        foreach (TestDefinition definition in defaults is null ? definitions : [defaults, .. definitions])
        {
            spec = definition.Apply(spec);
            tags.AddRange(definition.Tags);
        }
        spec = options.Change(spec);
        foreach (IReadOnlyList<(string Axis, MatrixValue Value)> variant in MatrixAxis.Combine(origin, axes))
        {
            var builder = new VmConfigBuilder();
            // A guest's code is one of the ways in which it tells its verdict; whoever wants the port for something else says so.
            builder.AddJson("the defaults of vmm test", """{"debug_exit": "on"}"""u8.ToArray());
            foreach (TestDefinition definition in defaults is null ? definitions : [defaults, .. definitions])
            {
                if (definition.Machine is { } machine)
                    builder.AddJson($"{definition.Origin}.vm", machine);
            }
            builder.AddEnvironment();
            foreach ((_, MatrixValue value) in variant)
                value.Apply(builder);
            options.Configure(builder);
            string full = variant.Count == 0 ? name : $"{name}[{string.Join(',', variant.Select(one => $"{one.Axis}={one.Value.Label}"))}]";
            yield return new TestCase(full, source, [.. tags.Distinct()], spec, Prepare(full, builder.Build(), spec), options.Repeat(full, source));
        }
    }

    /// <summary>What the machine needs for its test.</summary>
    private static VmConfig Prepare(string name, VmConfig config, TestSpec spec)
    {
        config.CheckRunnable();
        if (config.Serial.Backend != ConsoleBackend.Tty && config.Console.Backend != ConsoleBackend.Tty)
            throw VmmException.Configuration($"{name}: there is no console to watch; leave --serial at tty, or give --console tty.");
        // A panic is known by its report, which the kernel may only write after it told us.
        config = config with { OnPanic = new PanicConfig(PanicAction.Continue) };
        if (spec.MaxReboots > 0)
            config = config with { OnReboot = new RebootConfig(RebootAction.Restart) };
        if (!spec.NmiOnHang || config.Payload.CommandLine.Contains("unknown_nmi_panic", StringComparison.Ordinal))
            return config;
        // Linux answers an unexpected NMI with a backtrace only where it may panic then; 0x40 adds the other processors'.
        string words = config.Cpus.Boot > 1 ? "unknown_nmi_panic panic_print=0x40" : "unknown_nmi_panic";
        string line = config.Payload.CommandLine;
        int arguments = $" {line} ".IndexOf(" -- ", StringComparison.Ordinal);
        line = arguments < 0 ? $"{line} {words}" : $"{line[..Math.Max(0, arguments - 1)]} {words} {line[arguments..]}";
        return config with { Payload = config.Payload with { CommandLine = line.Trim() } };
    }

    private static bool IsChosen(TestCase test, TestPlanOptions options) =>
        (options.Tags.Count == 0 || options.Tags.Any(tag => test.Tags.Contains(tag))) &&
        (options.Only.Count == 0 || options.Only.Any(pattern => Matches(pattern, test.Name)));

    // A name is full of brackets, so they mean themselves; only * is anything.
    internal static bool Matches(string pattern, string name)
    {
        string[] parts = pattern.Split('*');
        if (parts.Length == 1)
            return name == pattern;
        if (!name.StartsWith(parts[0], StringComparison.Ordinal) || name.Length < parts[0].Length + parts[^1].Length || !name.EndsWith(parts[^1], StringComparison.Ordinal))
            return false;
        int at = parts[0].Length;
        int end = name.Length - parts[^1].Length;
        foreach (string part in parts[1..^1])
        {
            int found = name.AsSpan(at, end - at).IndexOf(part, StringComparison.Ordinal);
            if (found < 0)
                return false;
            at += found + part.Length;
        }
        return true;
    }

    private static void RequireUnique(List<TestCase> tests)
    {
        var names = new Dictionary<string, string>();
        foreach (TestCase test in tests)
        {
            if (!names.TryAdd(test.Name, test.Source))
                throw VmmException.Configuration($"{test.Source}: there is another test {OptionGrammar.Show(test.Name)}{(names[test.Name] == test.Source ? "" : $" in {names[test.Name]}")}; give each its own name.");
        }
    }

    private static JsonDocument Parse(string path)
    {
        byte[] bytes;
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            if (file.Length > MaximumFile)
                throw VmmException.Configuration($"{path} is larger than 4 MiB, so it is no test file.");
            using var content = new MemoryStream();
            file.CopyTo(content);
            bytes = content.ToArray();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw VmmException.Configuration($"cannot read the tests in {OptionGrammar.Show(path)}: {e.Message.ReplaceLineEndings(" ")}", e);
        }
        try
        {
            return JsonDocument.Parse(bytes, new JsonDocumentOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true, MaxDepth = 32 });
        }
        catch (JsonException e)
        {
            throw VmmException.Configuration($"{path}: this is no JSON: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }
}
