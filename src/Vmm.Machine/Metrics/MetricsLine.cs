using System.Buffers;
using System.Text.Json;
using Vmm.Core.Cpu;
using Vmm.Virtio;

namespace Vmm.Machine.Metrics;

/// <summary>Makes one line of metrics: a JSON object with the time, each vCPU's exits and each device's counters.</summary>
internal sealed class MetricsLine : ICounterSink, IDisposable
{
    private readonly ArrayBufferWriter<byte> _buffer = new();
    private readonly Utf8JsonWriter _json;

    internal MetricsLine() => _json = new Utf8JsonWriter(_buffer);

    /// <summary>Writes the line, with its end.</summary>
    internal ReadOnlySpan<byte> Write(DateTimeOffset time, IReadOnlyList<Vcpu> vcpus, IReadOnlyList<VirtioDevice> devices)
    {
        _buffer.ResetWrittenCount();
        _json.Reset();
        _json.WriteStartObject();
        _json.WriteString("time", time);
        _json.WriteStartObject("vcpus");
        foreach (Vcpu vcpu in vcpus)
        {
            VcpuCounters counters = vcpu.Counters;
            _json.WriteStartObject($"vcpu{vcpu.Id}");
            Add("port_exits", counters.PortIo);
            Add("mmio_exits", counters.Mmio);
            Add("kick_exits", counters.Kicks);
            Add("other_exits", counters.Other);
            _json.WriteEndObject();
        }

        _json.WriteEndObject();
        _json.WriteStartObject("devices");
        foreach (VirtioDevice device in devices)
        {
            _json.WriteStartObject(device.Id);
            device.ReportCounters(this);
            _json.WriteEndObject();
        }

        _json.WriteEndObject();
        _json.WriteEndObject();
        _json.Flush();
        _buffer.Write("\n"u8);
        return _buffer.WrittenSpan;
    }

    public void Dispose() => _json.Dispose();

    public void Add(string name, long value) => _json.WriteNumber(name, value);
}
