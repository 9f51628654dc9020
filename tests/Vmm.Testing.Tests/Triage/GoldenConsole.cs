using System.Globalization;
using System.Text;
using Vmm.Testing.Triage;

namespace Vmm.Testing.Tests.Triage;

/// <summary>How a kernel introduces its lines.</summary>
public enum Prefix
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary><c>&lt;4&gt;</c>.</summary>
    Level,

    /// <summary><c>[   12.345678] </c>.</summary>
    Time,

    /// <summary><c>[   12.345678][ T123] </c>.</summary>
    Caller,

    /// <summary><c>&lt;4&gt;[   12.345678][ T123] </c>.</summary>
    LevelAndCaller,
}

/// <summary>A console with the reports that are in it, from one of the files in Golden; linux-faults.txt describes their form.</summary>
/// <param name="Name">What it shows.</param>
/// <param name="Caller">Who prints the reports, as in <c>T123</c>; empty where the kernel never says.</param>
/// <param name="Reports">Their kinds and titles.</param>
/// <param name="Lines">Whose each line is, and its text.</param>
public sealed record GoldenConsole(string Name, string Caller, IReadOnlyList<(ReportKind Kind, string Title)> Reports, IReadOnlyList<(char Owner, string Text)> Lines)
{
    private static readonly Lazy<GoldenConsole[]> s_all = new(() => [.. ReadFiles()]);

    public static IReadOnlyList<GoldenConsole> All => s_all.Value;

    public static GoldenConsole Get(string name) => All.Single(console => console.Name == name);

    public bool IsLinux => Caller.Length > 0;

    /// <summary>Reads one of the text files beside the tests.</summary>
    public static string Resource(string name)
    {
        using Stream stream = typeof(GoldenConsole).Assembly.GetManifestResourceStream(name) ?? throw new FileNotFoundException(name);
        using var reader = new StreamReader(stream, Encoding.UTF8);
        return reader.ReadToEnd();
    }

    /// <summary>The console as a kernel with some configuration prints it, and the reports that are to be found.</summary>
    public (List<string> Console, List<GuestReport> Expected) Print(Prefix prefix)
    {
        var console = new List<string>();
        var texts = Reports.Select(_ => new StringBuilder()).ToList();
        bool saysWho = prefix is Prefix.Caller or Prefix.LevelAndCaller;
        for (int i = 0; i < Lines.Count; i++)
        {
            (char owner, string text) = Lines[i];
            if (owner == '~' && !saysWho)
                continue;
            string line = owner == '.' || !IsLinux ? text : Introduction(prefix, i, owner switch { ' ' or '~' => "T999", 'N' => "C1", _ => Caller }) + text;
            console.Add(line);
            if (owner == 'N' || char.IsAsciiDigit(owner))
                texts[owner == 'N' ? 0 : owner - '1'].Append(line).Append('\n');
        }

        return (console, [.. Reports.Select((report, i) => new GuestReport(report.Kind, report.Title, texts[i].ToString()))]);
    }

    public static List<GuestReport> Scan(IEnumerable<string> console)
    {
        var scanner = new ReportScanner();
        var reports = new List<GuestReport>();
        foreach (string line in console)
        {
            scanner.Line(line);
            Take(scanner, reports);
        }

        scanner.End();
        Take(scanner, reports);
        Assert.False(scanner.IsCollecting);
        return reports;
    }

    public override string ToString() => Name;

    private static void Take(ReportScanner scanner, List<GuestReport> reports)
    {
        while (scanner.TryTake(out GuestReport report))
            reports.Add(report);
    }

    private static string Introduction(Prefix prefix, int index, string caller)
    {
        string level = prefix is Prefix.Level or Prefix.LevelAndCaller ? "<4>" : "";
        string time = prefix >= Prefix.Time ? string.Create(CultureInfo.InvariantCulture, $"[{12.345678 + (index * 0.00021),12:F6}]") : "";
        string who = prefix is Prefix.Caller or Prefix.LevelAndCaller ? $"[{caller,6}]" : "";
        return time.Length > 0 ? $"{level}{time}{who} " : level;
    }

    private static IEnumerable<GoldenConsole> ReadFiles()
    {
        foreach (string file in (string[])["linux-faults.txt", "linux-warnings.txt", "linux-sanitizers.txt", "linux-locks.txt", "linux-stalls.txt", "openbsd.txt"])
        {
            foreach (string part in ("\n" + Resource("Golden/" + file)).Split("\n=== ").Skip(1))
                yield return Parse(part.TrimEnd('\n').Split('\n'), file != "openbsd.txt");
        }
    }

    private static GoldenConsole Parse(string[] lines, bool isLinux)
    {
        int caller = lines[0].LastIndexOf('(');
        var reports = new List<(ReportKind, string)>();
        int i = 1;
        while (char.IsAsciiLetterUpper(lines[i][0]) && lines[i].IndexOf(' ') is var blank and > 0 && Enum.TryParse(lines[i][..blank], out ReportKind kind))
            reports.Add((kind, lines[i++][(blank + 1)..]));
        return new GoldenConsole(isLinux ? lines[0][..caller].TrimEnd() : lines[0], isLinux ? lines[0][(caller + 1)..^1] : "", reports,
            [.. lines[i..].Select(line => (line[0], line[1..]))]);
    }
}
