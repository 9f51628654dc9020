using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.RegularExpressions;
using Xunit.Abstractions;

namespace Vmm.Core.Tests.Interop;

/// <summary>
/// Every struct, field, constant and function of src/Vmm.Core/Interop against the system's C headers, by a C program made from our
/// declarations. The header is the one that the file is named after; what has another name in C stands in <see cref="CNames"/>.
/// A declaration that C does not know fails here.
/// </summary>
public sealed partial class AbiTests(ITestOutputHelper output)
{
    public static TheoryData<string> Files => [.. InteropFile.All.Values.Where(f => !f.IsEmpty).Select(f => f.Name)];

    [Fact]
    public void Every_declaration_stands_in_a_file_that_was_read()
    {
        IEnumerable<string> structs = InteropFile.AllStructs.Except(InteropFile.All.Values.SelectMany(f => f.Structs)).Select(t => t.Name);
        IEnumerable<string> constants = InteropFile.AllConstants.Except(InteropFile.All.Values.SelectMany(f => f.Constants)).Select(f => f.Name);
        Assert.Empty(structs.Concat(constants));
        Assert.True(InteropFile.AllStructs.Count > 30, "Reflection finds the structs.");
        Assert.True(InteropFile.AllConstants.Count > 150, "Reflection finds the constants.");
        Assert.True(InteropFile.All.Values.Sum(f => f.Functions.Count) > 30, "The functions are found.");
    }

    [Fact]
    public void Inline_arrays_have_the_size_that_their_name_says()
    {
        foreach (Type type in InteropFile.AllStructs.Where(IsPlainArray))
        {
            Match match = PlainArrayPattern().Match(type.Name);
            int bits = int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture);
            Assert.Equal(bits / 8 * int.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture), StructLayoutOf.Size(type));
        }
    }

    [SkippableTheory]
    [MemberData(nameof(Files))]
    public void What_it_declares_is_what_C_has(string file)
    {
        if (!CCompiler.IsThere)
            SkipOrFail("there is no C compiler; install gcc and libc6-dev");
        InteropFile declared = InteropFile.All[file];
        string[] headers = CNames.Headers.GetValueOrDefault(file, [declared.Header]);
        string prologue = "#define _GNU_SOURCE 1\n#include <stddef.h>\n#include <stdio.h>\n" + string.Concat(headers.Select(h => $"#include <{h}>\n"));
        if (CCompiler.LinesWithErrors(prologue).Count > 0)
        {
            if (CNames.OptionalHeaders.TryGetValue(declared.Header, out string? package))
                Skip.If(true, $"<{declared.Header}> is not installed; it is in {package}");
            Assert.Fail($"Interop/{file}.cs declares something, but there is no <{declared.Header}>: name the file after the C header.");
        }
        List<Probe> probes = [.. Probes(declared)];
        Resolve(prologue, probes);
        List<string> wrong = [];
        foreach (Probe probe in probes.Where(p => p.Found == null))
        {
            if (CNames.NewerThanOldestHeaders.TryGetValue(probe.OurName, out string? version))
                output.WriteLine($"NOT CHECKED {probe.OurName}: these headers are older than {version}");
            else
                wrong.Add($"{probe.OurName}: C's <{declared.Header}> has no {string.Join(" or ", probe.Candidates)}");
        }
        Compare(prologue, [.. probes.Where(p => p.Found != null)], wrong);
        output.WriteLine($"<{declared.Header}>: compared {probes.Count(p => p.Found != null)} declarations");
        Assert.True(wrong.Count == 0, string.Join('\n', wrong));
    }

    private static IEnumerable<Probe> Probes(InteropFile file)
    {
        foreach (string function in file.Functions)
            yield return new Probe(function, [$"sizeof(__typeof__(&{function}))"], _ => 8);
        foreach (FieldInfo constant in file.Constants)
            yield return new Probe(constant.Name, [constant.Name], Wanted(constant));
        foreach (Type type in file.Structs.Where(t => !IsPlainArray(t)))
        {
            string[] names = CNames.Types.TryGetValue(type.Name, out string? name) ? [name] : [$"struct {type.Name}", type.Name];
            int size = StructLayoutOf.Size(type);
            yield return new Probe(type.Name, [.. names.Select(n => $"sizeof({n})")], c => CNames.HeadOnly.Contains(type.Name) && c > size ? c : size);
            if (type.IsDefined(typeof(InlineArrayAttribute)))
                continue;
            foreach (FieldInfo field in type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic))
            {
                (int offset, int length) = StructLayoutOf.Field(type, field);
                string[] fields = [.. names.SelectMany(n => FieldNames(type, field).Select(f => $"{n}, {f}"))];
                yield return new Probe($"offset of {type.Name}.{field.Name}", [.. fields.Select(f => $"offsetof({f})")], _ => offset);
                yield return new Probe($"size of {type.Name}.{field.Name}", [.. fields.Select(f => $"sizeof((({f.Replace(", ", " *)0)->", StringComparison.Ordinal)})")], _ => length);
            }
        }
    }

    /// <summary>Possible C names of a field: its own, a member of a nested struct, an element of an array.</summary>
    private static List<string> FieldNames(Type type, FieldInfo field)
    {
        if (CNames.Fields.TryGetValue($"{type.Name}.{field.Name}", out string? name))
            return [name];
        List<string> names = [field.Name];
        int underscore = field.Name.IndexOf('_', StringComparison.Ordinal);
        if (underscore > 0)
            names.Add($"{field.Name[..underscore]}.{field.Name[(underscore + 1)..]}");
        if (ElementPattern().Match(field.Name) is { Success: true } element)
            names.Add($"{element.Groups[1].Value}[{element.Groups[2].Value}]");
        return names;
    }

    private static unsafe Func<long, long> Wanted(FieldInfo constant)
    {
        object? raw = constant.IsLiteral ? constant.GetRawConstantValue() : constant.GetValue(null);
        long value = raw switch
        {
            ulong u => (long)u,
            nuint u => (long)u,
            nint i => i,
            Pointer p => (long)Pointer.Unbox(p),
            uint u => u,
            _ => Convert.ToInt64(raw, CultureInfo.InvariantCulture),
        };
        // The same 32 bits may be negative on one side only.
        return c => c == value || (raw is uint && c == (int)(uint)value) || (raw is int && c == (uint)value) ? c : value;
    }

    /// <summary>Finds for each probe the first spelling that compiles, each on its own line of one program.</summary>
    private static void Resolve(string prologue, List<Probe> probes)
    {
        int first = prologue.Count(c => c == '\n') + 2;
        var text = new StringBuilder(prologue).Append("void probe(void) {\n");
        List<(Probe Probe, string Spelling)> lines = [.. probes.SelectMany(p => p.Candidates.Select(c => (p, c)))];
        foreach ((Probe _, string spelling) in lines)
            text.Append(CultureInfo.InvariantCulture, $"{{ long long v = (long long)({spelling}); }}\n");
        IReadOnlySet<int> bad = CCompiler.LinesWithErrors(text.Append("}\n").ToString());
        for (int i = 0; i < lines.Count; i++)
        {
            if (!bad.Contains(first + i))
                lines[i].Probe.Found ??= lines[i].Spelling;
        }
    }

    private static void Compare(string prologue, List<Probe> probes, List<string> wrong)
    {
        var text = new StringBuilder(prologue).Append("int main(void) {\n");
        foreach (Probe probe in probes)
            text.Append(CultureInfo.InvariantCulture, $"printf(\"%lld\\n\", (long long)({probe.Found}));\n");
        string[] answers = CCompiler.CompileAndRun(text.Append("return 0; }\n").ToString()).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(probes.Count, answers.Length);
        for (int i = 0; i < answers.Length; i++)
        {
            long c = long.Parse(answers[i], CultureInfo.InvariantCulture);
            long ours = probes[i].Wanted(c);
            if (ours != c)
                wrong.Add($"{probes[i].OurName}: ours 0x{ours:x}, C's {probes[i].Found} 0x{c:x}");
        }
    }

    private static bool IsPlainArray(Type type) => type.IsDefined(typeof(InlineArrayAttribute)) && PlainArrayPattern().IsMatch(type.Name);

    private static void SkipOrFail(string why)
    {
        if (Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1")
            Assert.Fail(why);
        Skip.If(true, why);
    }

    [GeneratedRegex(@"^U(8|16|32|64)x(\d+)$")]
    private static partial Regex PlainArrayPattern();

    [GeneratedRegex(@"^(.*?\D)(\d+)$")]
    private static partial Regex ElementPattern();

    /// <summary>One number to compare. Wanted takes C's number and gives the one it should be.</summary>
    private sealed record Probe(string OurName, string[] Candidates, Func<long, long> Wanted)
    {
        public string? Found { get; set; }
    }
}
