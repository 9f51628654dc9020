using System.Globalization;
using System.Text;
using System.Text.Json;
using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Testing.Specification;

/// <summary>
/// A test as it was written down, before its matrix is multiplied out: changes to what stands before it (the file's defaults), and its machine as layers
/// of configuration.
/// </summary>
internal sealed class TestDefinition
{
    private static readonly string[] s_keys =
    [
        "name", "tags", "vm", "matrix", "steps", "expect", "forbid", "exit", "code", "timeout", "step_timeout", "hang", "retries", "max_reboots",
        "fail_on", "ignore", "symbols", "nmi_on_hang",
    ];

    private static readonly string[] s_stepKeys = ["wait", "send", "timeout"];

    private TestDefinition(string origin) => Origin = origin;

    /// <summary>Where it was written, for errors.</summary>
    internal string Origin { get; }

    internal string? Name { get; private set; }

    internal List<string> Tags { get; } = [];

    /// <summary>Its machine's configuration, as JSON; null where it says nothing of it.</summary>
    internal byte[]? Machine { get; private set; }

    internal List<MatrixAxis> Matrix { get; } = [];

    /// <summary>What it changes in a specification, in order.</summary>
    private List<Func<TestSpec, TestSpec>> Changes { get; } = [];

    private List<TestStep> Expected { get; } = [];

    /// <summary>The specification with this definition's changes.</summary>
    internal TestSpec Apply(TestSpec before)
    {
        foreach (Func<TestSpec, TestSpec> change in Changes)
            before = change(before);
        // After the steps, whichever was written first.
        return Expected.Count == 0 ? before : before with { Steps = [.. before.Steps, .. Expected] };
    }

    /// <summary>Reads a JSON object.</summary>
    /// <exception cref="VmmException">A key is unknown, or has a value that it cannot have.</exception>
    internal static TestDefinition Read(string origin, JsonElement json, bool isDefault)
    {
        if (json.ValueKind != JsonValueKind.Object)
            throw VmmException.Configuration($"{origin}: a test is an object; here is {Kind(json)}.");
        var definition = new TestDefinition(origin);
        var seen = new HashSet<string>();
        foreach (JsonProperty member in json.EnumerateObject())
        {
            string key = member.Name.Replace('-', '_');
            if (!s_keys.Contains(key))
                throw VmmException.Configuration($"{origin}: there is no key {OptionGrammar.Show(member.Name)} in a test.{Suggestion.DidYouMean(key, s_keys)}");
            if (!seen.Add(key))
                throw VmmException.Configuration($"{origin}.{key}: it is there twice; leave one of them out.");
            if (isDefault && key is "name")
                throw VmmException.Configuration($"{origin}.{key}: defaults have no name.");
            definition.Take(key, $"{origin}.{key}", member.Value);
        }
        return definition;
    }

    private void Take(string key, string at, JsonElement value)
    {
        switch (key)
        {
            case "name":
                Name = Text(at, value);
                if (Name.Length is 0 or > 200)
                    throw VmmException.Configuration($"{at}: a name has 1 to 200 characters.");
                break;
            case "tags":
                Tags.AddRange(Texts(at, value));
                break;
            case "vm":
                if (value.ValueKind != JsonValueKind.Object)
                    throw VmmException.Configuration($"{at}: it takes a machine's configuration, as vmm config prints it; here is {Kind(value)}.");
                Machine = Encoding.UTF8.GetBytes(value.GetRawText());
                break;
            case "matrix":
                Matrix.AddRange(MatrixAxis.Read(at, value));
                break;
            case "steps":
                List<TestStep> steps = [.. Items(at, value).Select((step, i) => ReadStep($"{at}[{i}]", step))];
                Changes.Add(spec => spec with { Steps = steps });
                break;
            case "expect":
                Expected.AddRange(Texts(at, value).Select(text => new TestStep(TestStep.Pattern(at, text), null)));
                break;
            case "forbid":
                List<System.Text.RegularExpressions.Regex> forbidden = [.. Texts(at, value).Select(text => TestStep.Pattern(at, text))];
                Changes.Add(spec => spec with { Forbid = [.. spec.Forbid, .. forbidden] });
                break;
            case "ignore":
                List<System.Text.RegularExpressions.Regex> ignored = [.. Texts(at, value).Select(text => TestStep.Pattern(at, text))];
                Changes.Add(spec => spec with { Ignore = [.. spec.Ignore, .. ignored] });
                break;
            default:
                Changes.Add(Setting(key, at, value));
                break;
        }
    }

    private static Func<TestSpec, TestSpec> Setting(string key, string at, JsonElement value)
    {
        switch (key)
        {
            case "exit":
                List<Machine.VmExitReason> exits = [.. Texts(at, value).Select(word => TestSpec.ParseExit(at, word))];
                return spec => spec with { Exits = exits };
            case "code":
                uint code = (uint)Number(at, value, uint.MaxValue);
                return spec => spec with { Code = code };
            case "timeout":
                TimeSpan timeout = Time(at, value);
                return spec => spec with { Timeout = timeout };
            case "step_timeout":
                TimeSpan step = Time(at, value);
                return spec => spec with { StepTimeout = step };
            case "hang":
                TimeSpan hang = Time(at, value);
                return spec => spec with { Hang = hang };
            case "retries":
                int retries = (int)Number(at, value, 100);
                return spec => spec with { Retries = retries };
            case "max_reboots":
                int reboots = (int)Number(at, value, 1000);
                return spec => spec with { MaxReboots = reboots };
            case "fail_on":
                Failures failures = TestSpec.ParseFailures(at, Texts(at, value));
                return spec => spec with { FailOn = failures };
            case "symbols":
                string symbols = Text(at, value);
                return spec => spec with { Symbols = symbols };
            default:
                bool nmi = value.ValueKind switch
                {
                    JsonValueKind.True => true,
                    JsonValueKind.False => false,
                    _ => throw VmmException.Configuration($"{at}: it takes true or false; here is {Kind(value)}."),
                };
                return spec => spec with { NmiOnHang = nmi };
        }
    }

    private static TestStep ReadStep(string at, JsonElement json)
    {
        if (json.ValueKind == JsonValueKind.String)
            return new TestStep(TestStep.Pattern(at, json.GetString()!), null);
        if (json.ValueKind != JsonValueKind.Object)
            throw VmmException.Configuration($"{at}: a step is an object with wait or send, or the pattern to wait for; here is {Kind(json)}.");
        System.Text.RegularExpressions.Regex? wait = null;
        string? send = null;
        TimeSpan? timeout = null;
        foreach (JsonProperty member in json.EnumerateObject())
        {
            string where = $"{at}.{member.Name}";
            switch (member.Name)
            {
                case "wait":
                    wait = TestStep.Pattern(where, Text(where, member.Value));
                    break;
                case "send":
                    send = Text(where, member.Value);
                    break;
                case "timeout":
                    timeout = Time(where, member.Value);
                    break;
                default:
                    throw VmmException.Configuration($"{at}: there is no key {OptionGrammar.Show(member.Name)} in a step.{Suggestion.DidYouMean(member.Name, s_stepKeys)}");
            }
        }
        return TestStep.Make(at, wait, send, timeout);
    }

    private static TimeSpan Time(string at, JsonElement value) =>
        TimeLimit.Parse(at, value.ValueKind == JsonValueKind.Number ? value.GetRawText() : Text(at, value));

    private static ulong Number(string at, JsonElement value, ulong most) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetUInt64(out ulong number) && number <= most ? number
            : throw VmmException.Configuration(string.Create(CultureInfo.InvariantCulture, $"{at}: it takes a whole number from 0 to {most}; here is {Kind(value)}."));

    internal static string Text(string at, JsonElement value) =>
        value.ValueKind == JsonValueKind.String ? value.GetString()! : throw VmmException.Configuration($"{at}: it takes a text; here is {Kind(value)}.");

    /// <summary>A list of texts, or one.</summary>
    private static IEnumerable<string> Texts(string at, JsonElement value) =>
        value.ValueKind == JsonValueKind.String ? [value.GetString()!] : [.. Items(at, value).Select((item, i) => Text($"{at}[{i}]", item))];

    internal static IEnumerable<JsonElement> Items(string at, JsonElement value) =>
        value.ValueKind == JsonValueKind.Array ? value.EnumerateArray() : throw VmmException.Configuration($"{at}: it takes a list; here is {Kind(value)}.");

    /// <summary>What is there instead, for a message.</summary>
    internal static string Kind(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        JsonValueKind.Null => "null",
        _ => OptionGrammar.Show(value.GetRawText()),
    };
}
