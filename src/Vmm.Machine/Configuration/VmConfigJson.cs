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
            WriteSection(json, "cpus", config.Cpus);
            WriteSection(json, "memory", config.Memory);
            WritePayload(json, config.Payload);
            json.WriteStartObject("boot");
            json.WriteString("protocol", config.Boot.Name);
            json.WriteEndObject();
            WriteConsole(json, "serial", config.Serial);
            WriteConsole(json, "debug_console", config.DebugConsole);
            json.WriteString("debug_exit", config.DebugExit.ToOptionText());
            json.WriteString("acpi", config.Acpi.ToOptionText());
            json.WriteString("on_reboot", config.OnReboot.ToOptionText());
            json.WriteString("on_panic", config.OnPanic.ToOptionText());
            json.WriteStartObject("log");
            json.WriteString("level", config.Log.LevelName);
            WriteIfSet(json, "file", config.Log.File);
            json.WriteString("format", config.Log.FormatName);
            json.WriteEndObject();
            WriteDevices(json, config);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan) + "\n";
    }

    private static void WriteDevices(Utf8JsonWriter json, VmConfig config)
    {
        json.WriteString("bus", config.Bus.ToOptionText());
        WriteSection(json, "io_threads", config.IoThreads);
        WriteList(json, "disks", config.Disks);
        WriteList(json, "net", config.Net);
        WriteList(json, "pmem", config.Pmem);
        WriteList(json, "fs", config.Fs);
        WriteList(json, "gpu", config.Gpu);
        WriteSection(json, "vsock", config.Vsock);
        WriteList(json, "vhost_user", config.VhostUser);
        WriteConsole(json, "console", config.Console);
        WriteSection(json, "rng", config.Rng);
        WriteSection(json, "balloon", config.Balloon);
        json.WriteString("watchdog", config.Watchdog.ToOptionText());
        WriteSection(json, "metrics", config.Metrics);
    }

    private static void WriteList<T>(Utf8JsonWriter json, string name, ConfigList<T> items) where T : IConfigSection
    {
        if (items.Count == 0)
            return;
        json.WriteStartArray(name);
        foreach (T item in items)
        {
            json.WriteStartObject();
            item.WriteTo(new JsonSectionWriter(json));
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private static void WriteSection(Utf8JsonWriter json, string name, IConfigSection? section)
    {
        if (section is null)
            return;
        json.WriteStartObject(name);
        section.WriteTo(new JsonSectionWriter(json));
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
