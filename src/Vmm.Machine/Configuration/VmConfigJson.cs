using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Vmm.Machine.Configuration;

/// <summary>Writes a configuration as the JSON that <see cref="VmConfigBuilder.AddFile"/> reads.</summary>
public static class VmConfigJson
{
    /// <summary>The whole configuration, defaults included, as indented JSON with a newline at the end.</summary>
    public static string Write(VmConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var buffer = new ArrayBufferWriter<byte>();
        var options = new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
        using (var json = new Utf8JsonWriter(buffer, options))
        {
            json.WriteStartObject();
            json.WriteStartObject("cpus");
            json.WriteNumber("boot", config.Cpus.Boot);
            if (config.Cpus.Max is { } max)
                json.WriteNumber("max", max);
            json.WriteEndObject();
            WriteMemory(json, config.Memory);
            WritePayload(json, config.Payload);
            json.WriteStartObject("boot");
            json.WriteString("protocol", config.Boot.Name);
            json.WriteEndObject();
            WriteConsole(json, "serial", config.Serial);
            WriteConsole(json, "debug_console", config.DebugConsole);
            json.WriteString("acpi", config.Acpi.ToOptionText());
            json.WriteString("on_reboot", config.OnReboot.ToOptionText());
            json.WriteStartObject("log");
            json.WriteString("level", config.Log.LevelName);
            WriteIfSet(json, "file", config.Log.File);
            json.WriteString("format", config.Log.FormatName);
            json.WriteEndObject();
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan) + "\n";
    }

    private static void WriteMemory(Utf8JsonWriter json, MemoryConfig memory)
    {
        json.WriteStartObject("memory");
        json.WriteString("size", ByteSize.Format(memory.Size));
        json.WriteBoolean("shared", memory.Shared);
        json.WriteBoolean("hugepages", memory.HugePages);
        if (memory.HugePages)
            json.WriteString("hugepage_size", ByteSize.Format(memory.HugePageSize));
        json.WriteBoolean("prefault", memory.Prefault);
        json.WriteEndObject();
    }

    private static void WritePayload(Utf8JsonWriter json, PayloadConfig payload)
    {
        json.WriteStartObject("payload");
        WriteIfSet(json, "kernel", payload.Kernel);
        WriteIfSet(json, "initramfs", payload.Initramfs);
        json.WriteString("cmdline", payload.CommandLine);
        json.WriteEndObject();
    }

    private static void WriteConsole(Utf8JsonWriter json, string name, ConsoleConfig console)
    {
        if (console.Path is not { } path)
        {
            json.WriteString(name, console.Name);
            return;
        }

        json.WriteStartObject(name);
        json.WriteString(console.Name, path);
        json.WriteEndObject();
    }

    private static void WriteIfSet(Utf8JsonWriter json, string name, string? value)
    {
        if (value is not null)
            json.WriteString(name, value);
    }
}
