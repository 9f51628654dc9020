using System.Diagnostics;
using System.Text.RegularExpressions;

namespace Vmm.Core.Tests.Interop;

/// <summary>The system's C compiler.</summary>
internal static partial class CCompiler
{
    public static bool IsThere { get; } = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(d => File.Exists(Path.Combine(d, "cc")));

    /// <summary>Compiles without output; the numbers of the lines that have an error.</summary>
    public static IReadOnlySet<int> LinesWithErrors(string source)
    {
        (_, string errors) = Run("cc", "-fsyntax-only -fmax-errors=0 -w -x c -", source);
        var lines = new HashSet<int>();
        foreach (Match match in ErrorPattern().Matches(errors))
            lines.Add(int.Parse(match.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture));
        return lines;
    }

    /// <summary>Compiles and runs; what the program printed.</summary>
    public static string CompileAndRun(string source)
    {
        string program = Path.Combine(Path.GetTempPath(), $"abi-{Environment.ProcessId}-{Guid.NewGuid():N}");
        try
        {
            (string output, string errors) = Run("cc", $"-w -x c -o {program} -", source);
            Assert.True(File.Exists(program), $"cc failed: {output}{errors}");
            return Run(program, "", "").Output;
        }
        finally
        {
            File.Delete(program);
        }
    }

    private static (string Output, string Errors) Run(string program, string arguments, string input)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["LC_ALL"] = "C";
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        process.WaitForExit();
        return (output.Result, errors.Result);
    }

    [GeneratedRegex(@"^<stdin>:(\d+):\d+: (?:fatal )?error:", RegexOptions.Multiline)]
    private static partial Regex ErrorPattern();
}
