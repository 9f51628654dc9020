using Vmm.Core;
using Vmm.Core.Cpu;
using Vmm.Machine.Configuration;
using Vmm.Virtio;

namespace Vmm.Machine.Metrics;

/// <summary>Appends a line of metrics to a file now and then, and a last one at the end of each life of the machine.</summary>
internal sealed class MetricsWriter : IDisposable
{
    private readonly FileStream _file;
    private readonly string _path;
    private readonly Action<string> _failedBecause;
    private readonly MetricsLine _line = new();
    private readonly Timer _timer;

    // Guards what is measured and the line; devices are only read under it.
    private readonly Lock _lock = new();
    private IReadOnlyList<Vcpu> _vcpus = [];
    private IReadOnlyList<VirtioDevice> _devices = [];
    private bool _failed;

    private MetricsWriter(FileStream file, string path, TimeSpan interval, Action<string> failed)
    {
        _file = file;
        _path = path;
        _failedBecause = failed;
        _timer = new Timer(_ => Write(), null, interval, interval);
    }

    /// <summary>Opens the file; null when no metrics are asked for.</summary>
    /// <param name="config">Which file, and how often.</param>
    /// <param name="failed">Told once when the file takes no more; metrics end, the machine goes on.</param>
    /// <exception cref="VmmException">It cannot be opened.</exception>
    internal static MetricsWriter? Open(MetricsConfig config, Action<string> failed)
    {
        if (config.File is not { } path)
            return null;
        try
        {
            var file = new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0);
            return new MetricsWriter(file, path, TimeSpan.FromSeconds(config.Interval), failed);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw VmmException.Configuration($"--metrics: cannot append to {OptionGrammar.Show(path)}: {e.Message}", e);
        }
    }

    /// <summary>Measures these from now on.</summary>
    internal void Watch(IReadOnlyList<Vcpu> vcpus, IReadOnlyList<VirtioDevice> devices)
    {
        lock (_lock)
            (_vcpus, _devices) = (vcpus, devices);
    }

    /// <summary>Writes a last line and measures nothing from now on.</summary>
    internal void Release()
    {
        Write();
        Watch([], []);
    }

    public void Dispose()
    {
        _timer.Dispose();
        lock (_lock)
        {
            _failed = true;
            _file.Dispose();
            _line.Dispose();
        }
    }

    private void Write()
    {
        lock (_lock)
        {
            if (_failed || _vcpus.Count == 0)
                return;
            try
            {
                _file.Write(_line.Write(DateTimeOffset.UtcNow, _vcpus, _devices));
            }
            catch (IOException e)
            {
                _failed = true;
                _failedBecause($"No metrics are written to {OptionGrammar.Show(_path)} any more: {e.Message}");
            }
        }
    }
}
