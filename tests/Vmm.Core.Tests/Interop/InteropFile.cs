using System.Reflection;
using System.Text.RegularExpressions;
using Vmm.Core.Interop;

namespace Vmm.Core.Tests.Interop;

/// <summary>
/// One file of src/Vmm.Core/Interop and what it declares. The text says which name stands in which file (reflection does not know);
/// reflection says what each name is worth.
/// </summary>
internal sealed partial record InteropFile(string Name, IReadOnlyList<Type> Structs, IReadOnlyList<FieldInfo> Constants, IReadOnlyList<string> Functions)
{
    private const BindingFlags Statics = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;

    /// <summary>The C header that the file's name says: sys.mman.cs is sys/mman.h.</summary>
    public string Header => Name.Replace('.', '/') + ".h";

    public bool IsEmpty => Structs.Count + Constants.Count + Functions.Count == 0;

    private static readonly Type[] AllTypes =
        [.. typeof(LibC).Assembly.GetTypes().Where(t => t.Namespace == typeof(LibC).Namespace && !t.IsDefined(typeof(System.Runtime.CompilerServices.CompilerGeneratedAttribute)) && !t.Name.Contains('<', StringComparison.Ordinal))];

    /// <summary>Every struct with a layout of its own.</summary>
    public static IReadOnlyList<Type> AllStructs { get; } =
        [.. AllTypes.Where(t => t.IsValueType && !t.IsEnum && !t.IsPrimitive)];

    /// <summary>Every numeric constant, member of an enumeration, and constant pointer.</summary>
    public static IReadOnlyList<FieldInfo> AllConstants { get; } =
    [
        .. AllTypes.SelectMany(t => t.GetFields(Statics)).Where(f =>
            (f.IsLiteral && f.FieldType != typeof(string) && !f.IsPrivate) || (f.IsInitOnly && f.FieldType.IsPointer)),
    ];

    /// <summary>All files, by name without its ".cs".</summary>
    public static IReadOnlyDictionary<string, InteropFile> All { get; } = Read();

    private static Dictionary<string, InteropFile> Read()
    {
        var files = new Dictionary<string, InteropFile>();
        foreach (string path in Directory.EnumerateFiles(Path.Combine(Repository.Root, "src/Vmm.Core/Interop"), "*.cs", SearchOption.AllDirectories).Order())
        {
            string text = File.ReadAllText(path);
            HashSet<string> structs = [.. StructPattern().Matches(text).Select(m => m.Groups[1].Value)];
            HashSet<string> constants = [.. ConstantPattern().Matches(text).Select(m => m.Groups[1].Value)];
            foreach (Match body in EnumPattern().Matches(text))
                constants.UnionWith(EnumMemberPattern().Matches(body.Groups[1].Value).Select(m => m.Groups[1].Value));
            string name = Path.GetFileNameWithoutExtension(path);
            files.Add(name, new InteropFile(
                name,
                [.. AllStructs.Where(t => structs.Contains(t.Name))],
                [.. AllConstants.Where(f => constants.Contains(f.Name))],
                [.. FunctionPattern().Matches(text).Select(m => m.Groups[1].Value).Distinct()]));
        }
        return files;
    }

    [GeneratedRegex(@"\bstruct\s+@?(\w+)")]
    private static partial Regex StructPattern();

    [GeneratedRegex(@"(?:\bconst|\bstatic\s+readonly)\s+[\w*]+\s+@?(\w+)\s*=")]
    private static partial Regex ConstantPattern();

    [GeneratedRegex(@"\benum\s+\w+[^{]*\{([^}]*)\}")]
    private static partial Regex EnumPattern();

    [GeneratedRegex(@"^\s*@?(\w+)\s*(?:=[^,]*)?,?\s*$", RegexOptions.Multiline)]
    private static partial Regex EnumMemberPattern();

    // The C name of the function: its entry point where one is given, else its own.
    [GeneratedRegex(@"\[LibraryImport\([^\]]*\)\]\s*(?:\[[^\]]*\]\s*)*internal static (?:unsafe )?partial [\w*]+ (\w+)\(")]
    private static partial Regex FunctionPattern();
}
