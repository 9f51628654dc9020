using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Vmm.Machine.Configuration;
using Vmm.Machine.HostCheck;

namespace Vmm.Cli;

/// <summary><c>vmm check</c>: 0 where stock kernels boot, 1 where they do not.</summary>
internal static class CheckCommand
{
    internal static int Execute(bool json)
    {
        HostReport report = HostChecker.Check();
        Output.Write(json ? Json(report) : Text(report));
        return report.Verdict == HostVerdict.Ready ? ExitCodes.Success : ExitCodes.HostError;
    }

    internal static string Text(HostReport report)
    {
        var text = new StringBuilder();
        Line(text, report.Device, report.DeviceProblem is null ? $"usable, API version {report.ApiVersion}" : "not usable");
        Line(text, "module", report.Module ?? "none of kvm_intel, kvm_amd, kvm_pvm");
        if (report.DeviceProblem is null)
        {
            Line(text, "needed", Capabilities(report.Required));
            Line(text, "optional", Capabilities(report.Optional));
            Line(text, "vCPUs", $"at most {report.MaxVcpus} in a machine");
            Line(text, "memory slots", $"at most {report.MaxMemorySlots} in a machine");
            Line(text, "kernel code", report.InstructionsPerSecond is { } speed
                ? $"{(speed / 1e6).ToString("F1", CultureInfo.InvariantCulture)} million instructions/s" : "not measured");
        }

        Line(text, "memory", $"{Mega(report.MemoryBytes)}, {Mega(report.MemoryAvailableBytes)} available");
        Line(text, "huge pages", report.HugePages.Count == 0 ? "none"
            : string.Join(", ", report.HugePages.Select(pages => $"{ByteSize.Format(pages.Size)}: {pages.Free} of {pages.Total} free")));
        Line(text, "max_map_count", report.MaxMapCount?.ToString(CultureInfo.InvariantCulture) ?? "unknown");
        Line(text, "verdict", Verdict(report.Verdict));
        Line(text, "next", report.Next);
        return text.ToString();
    }

    internal static string Json(HostReport report)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            json.WriteString("device", report.Device);
            json.WriteBoolean("usable", report.DeviceProblem is null);
            Number(json, "api_version", report.ApiVersion);
            json.WriteString("module", report.Module);
            Capabilities(json, "required", report.Required);
            Capabilities(json, "optional", report.Optional);
            Number(json, "max_vcpus", report.MaxVcpus);
            Number(json, "max_memory_slots", report.MaxMemorySlots);
            Number(json, "max_map_count", report.MaxMapCount);
            Number(json, "memory_bytes", (long?)report.MemoryBytes);
            Number(json, "memory_available_bytes", (long?)report.MemoryAvailableBytes);
            json.WriteStartArray("huge_pages");
            foreach (HostHugePages pages in report.HugePages)
            {
                json.WriteStartObject();
                json.WriteNumber("size", pages.Size);
                json.WriteNumber("total", pages.Total);
                json.WriteNumber("free", pages.Free);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            Number(json, "instructions_per_second", (long?)report.InstructionsPerSecond);
            json.WriteString("verdict", VerdictWord(report.Verdict));
            json.WriteString("next", report.Next);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan) + "\n";
    }

    private static void Line(StringBuilder text, string name, string value) => text.Append($"{name + ":",-15}{value}\n");

    private static string Capabilities(IReadOnlyList<HostCapability> capabilities)
    {
        string[] missing = [.. capabilities.Where(capability => capability.Value == 0).Select(capability => capability.Name)];
        int present = capabilities.Count - missing.Length;
        string summary = $"{present} of {capabilities.Count} capabilities";
        return missing.Length == 0 ? summary : $"{summary}; missing: {string.Join(", ", missing)}";
    }

    private static void Capabilities(Utf8JsonWriter json, string name, IReadOnlyList<HostCapability> capabilities)
    {
        json.WriteStartObject(name);
        foreach (HostCapability capability in capabilities)
            json.WriteNumber(capability.Name, capability.Value);
        json.WriteEndObject();
    }

    private static void Number(Utf8JsonWriter json, string name, long? number)
    {
        if (number is { } known)
            json.WriteNumber(name, known);
        else
            json.WriteNull(name);
    }

    private static string Mega(ulong? bytes) => bytes is { } known ? $"{known / ByteSize.MiB}M" : "unknown";

    private static string Verdict(HostVerdict verdict) => verdict switch
    {
        HostVerdict.Ready => "stock kernels boot here",
        HostVerdict.NeedsSandbox => "stock kernels need the sandbox",
        _ => "no machine can run here",
    };

    private static string VerdictWord(HostVerdict verdict) => verdict switch
    {
        HostVerdict.Ready => "ready",
        HostVerdict.NeedsSandbox => "needs_sandbox",
        _ => "unusable",
    };
}
