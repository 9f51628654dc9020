using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Testing.Reports;

namespace Vmm.Cli;

/// <summary>What <c>--report</c> says.</summary>
internal sealed record TestReports(string? Directory, string? Junit, string? Json, bool Github, bool Live)
{
    private const int StandardOutput = 1;

    private static readonly string[] s_keys = ["dir", "junit", "json", "github", "progress"];

    /// <summary>Reads the option; null for what is without it.</summary>
    /// <exception cref="VmmException">It has a key or a word that nobody knows.</exception>
    internal static TestReports From(string? text)
    {
        const string origin = "--report";
        string? directory = null, junit = null, json = null, github = "auto", progress = "auto";
        foreach (OptionField field in text == null ? [] : OptionGrammar.Parse(origin, text))
        {
            string value = field.Value ?? throw VmmException.Configuration($"{origin}: {field.Key} needs a value; write {field.Key}=VALUE.");
            switch (field.Key)
            {
                case "dir":
                    directory = value;
                    break;
                case "junit":
                    junit = value;
                    break;
                case "json":
                    json = value;
                    break;
                case "github":
                    github = Word(field.Key, value, ["on", "off", "auto"]);
                    break;
                case "progress":
                    progress = Word(field.Key, value, ["live", "plain", "auto"]);
                    break;
                default:
                    throw VmmException.Configuration($"{origin}: there is no key {OptionGrammar.Show(field.Key)}.{Suggestion.DidYouMean(field.Key, s_keys)}");
            }
        }
        bool onGithub = Environment.GetEnvironmentVariable("GITHUB_ACTIONS") == "true";
        bool live = progress == "live" || (progress == "auto" && Environment.GetEnvironmentVariable("CI") is null or "" && Environment.GetEnvironmentVariable("TERM") != "dumb");
        return new TestReports(directory, junit, json, github == "on" || (github == "auto" && onGithub), live);
    }

    /// <summary>Opens them. Live progress needs a terminal; without one it is plain.</summary>
    internal CombinedReporter Open()
    {
        var reporters = new List<IRunReporter> { (IRunReporter?)(Live ? LiveReporter.ForTerminal(StandardOutput) : null) ?? new PlainReporter(new DescriptorWriter(StandardOutput)) };
        if (Github)
            reporters.Add(new GithubAnnotations(new DescriptorWriter(StandardOutput), Environment.GetEnvironmentVariable("GITHUB_STEP_SUMMARY")));
        if (Junit != null)
            reporters.Add(new JunitReport(Junit));
        if (Json != null)
            reporters.Add(new JsonReport(Json));
        return new CombinedReporter(reporters);
    }

    private static string Word(string key, string value, string[] known) =>
        known.Contains(value) ? value : throw VmmException.Configuration($"--report: {key} is one of {string.Join(", ", known)}, not {OptionGrammar.Show(value)}.");
}
