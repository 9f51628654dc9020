using System.Diagnostics;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>One device under attack.</summary>
public sealed class HostileRun : IDisposable
{
    private const int CasesPerDevice = 512;
    private static readonly TimeSpan s_stepLimit = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_waitLimit = TimeSpan.FromSeconds(20);

    private readonly HostileTarget _target;
    private readonly HostileScene _scene;
    private readonly GuardedRam _ram = new();
    private readonly HostileHost _host = new();
    private readonly Timer _watchdog;
    private readonly byte[] _configuration = new byte[4096];
    private VirtioDevice? _device;
    private HostileRings? _rings;
    private ushort[] _sizes = [];
    private bool[] _running = [];
    private VirtQueueState[] _states = [];
    private long _stepStarted;
    private volatile string _doing = "";
    private int _cases;
    private bool _wild;

    public HostileRun(HostileTarget target, HostileScene scene)
    {
        _target = target;
        _scene = scene;
        // A device that never answers would hang the run: it ends, and says where.
        _watchdog = new Timer(_ => CheckHang(), null, 5000, 5000);
    }

    /// <summary>What the device asked of its transport.</summary>
    public HostileHost Host => _host;

    /// <summary>Buffers that were given back; says whether the attack reaches the device at all.</summary>
    public long Requests { get; private set; }

    /// <summary>Buffers that the correct driver was given back.</summary>
    public long Reaped { get; private set; }

    /// <summary>Runs a case, and leaves the device reset.</summary>
    public void Case(HostileStep[] steps)
    {
        if (_device == null || ++_cases % CasesPerDevice == 0)
            Renew();
        _ram.Clear();
        var numbers = new SeededNumbers(steps.Length == 0 ? 0 : steps[0].Seed);
        _wild = numbers.OneIn(2);
        Timed("activate", numbers.Below(int.MaxValue), Activate);
        foreach (HostileStep step in steps)
            Timed(step.Kind, step);
        Timed("reset", 0, Reset);
        Assert.Null(_host.Defect);
        Assert.Empty(_scene.Failures);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _watchdog.Dispose();
        End();
        _ram.Dispose();
    }

    private void Renew()
    {
        End();
        _device = _target.Make(_scene);
        _sizes = [.. _device.QueueSizes];
        _running = new bool[_sizes.Length];
        _states = new VirtQueueState[_sizes.Length];
        _rings = new HostileRings(_ram.Memory, _sizes.Length, _target.TakesMemory);
    }

    /// <summary>Disposes of the device, and counts what it did.</summary>
    public void End()
    {
        if (_device == null)
            return;
        var sink = new Sum();
        _device.ReportCounters(sink);
        Requests += sink.Requests;
        Reaped += _rings!.Reaped;
        _device.Dispose();
        _rings.Dispose();
        _device = null;
    }

    private void Timed(int kind, HostileStep step) => Timed("step", step.Seed, seed =>
    {
        var numbers = new SeededNumbers(seed);
        int queue = step.X % _sizes.Length;
        switch (kind)
        {
            case < 34:
                _rings!.Fill(ref numbers, queue);
                if (!numbers.OneIn(3))
                    _rings.Ring(queue);
                break;
            case < 44:
                _rings!.Ring(queue);
                break;
            case < 54:
                _scene.Settle();
                break;
            case < 66:
                _rings!.Scribble(ref numbers);
                break;
            case < 72:
                Configuration(ref numbers, write: false);
                break;
            case < 78:
                Configuration(ref numbers, write: true);
                break;
            case < 82:
                _rings!.Suppress(ref numbers, queue);
                break;
            case < 86:
                StopStart(ref numbers, queue);
                break;
            case < 88:
                Reset(0);
                Activate(seed);
                break;
            case < 89:
                SaveRestore(seed);
                break;
            default:
                if (_rings!.IsWild)
                    _rings.Poke(ref numbers, queue);
                break;
        }
        if (_host.IsResetNeeded && numbers.OneIn(4))
        {
            Reset(0);
            Activate(seed);
        }
    });

    private void Timed(string what, int seed, Action<int> action)
    {
        _doing = what;
        TimeSpan cpu = Environment.CpuUsage.TotalTime;
        long started = Stopwatch.GetTimestamp();
        Volatile.Write(ref _stepStarted, started);
        action(seed);
        Volatile.Write(ref _stepStarted, 0);
        TimeSpan took = Stopwatch.GetElapsedTime(started);
        if (took < s_stepLimit)
            return;
        // A machine that is busy with something else makes anything slow; then the time was not spent here.
        TimeSpan spent = Environment.CpuUsage.TotalTime - cpu;
        Assert.False(spent > s_stepLimit / 2 || took > s_waitLimit, $"{_target.Name}: {what} took {took.TotalSeconds:F1} s, and {spent.TotalSeconds:F1} s of processor time.");
    }

    private void CheckHang()
    {
        long started = Volatile.Read(ref _stepStarted);
        if (started != 0 && Stopwatch.GetElapsedTime(started) > TimeSpan.FromSeconds(60))
            Environment.FailFast($"Hostile driver, {_target.Name}, case {_cases}: '{_doing}' has not ended after 60 s.");
    }

    private void Activate(int seed)
    {
        var numbers = new SeededNumbers(seed);
        ulong offered = _device!.OfferedFeatures;
        ulong features = numbers.Below(3) switch
        {
            0 => offered,
            1 => offered & ~VirtioFeatures.InOrder,
            _ => offered & numbers.Next(),
        } | VirtioFeatures.Version1;
        if (numbers.OneIn(2))
            features &= ~VirtioFeatures.RingPacked;
        _rings!.Begin(features, _wild);
        Array.Clear(_states);
        _device.Activate(new VirtioActivation(features, _ram.Memory, _host));
        for (int i = 0; i < _sizes.Length; i++)
        {
            if (!numbers.OneIn(10))
                Start(ref numbers, i, null);
        }
    }

    private void Start(ref SeededNumbers numbers, int queue, VirtQueueState? state)
    {
        VirtQueueSetup setup = _rings!.Setup(ref numbers, queue, _sizes[queue], state);
        _device!.StartQueue(setup);
        _running[queue] = true;
    }

    private void Stop(int queue)
    {
        _states[queue] = _device!.StopQueue(queue);
        Assert.Equal(_states[queue], _device.StopQueue(queue));
        _running[queue] = false;
    }

    private void StopStart(ref SeededNumbers numbers, int queue)
    {
        if (_running[queue])
            Stop(queue);
        if (numbers.OneIn(8))
            return;
        // As a pause does, or as a reset of the queue. What was in a broken queue is lost: a correct driver does not go on with that.
        bool mayGoOn = _states[queue] != default && (_rings!.IsWild || !_host.IsResetNeeded);
        Start(ref numbers, queue, mayGoOn && numbers.OneIn(2) ? _states[queue] : null);
    }

    private void Reset(int seed)
    {
        for (int i = 0; i < _sizes.Length; i++)
            Stop(i);
        _device!.Reset();
        _host.Clear();
    }

    private void SaveRestore(int seed)
    {
        for (int i = 0; i < _sizes.Length; i++)
            Stop(i);
        VirtioDeviceState state = _device!.Save();
        _device.Reset();
        _host.Clear();
        _device.Restore(state);
        Activate(seed);
    }

    private void Configuration(ref SeededNumbers numbers, bool write)
    {
        int length = Math.Min(_device!.ConfigurationLength, _configuration.Length);
        if (length == 0)
            return;
        int offset = numbers.Below(length);
        int count = Math.Min(numbers.OneIn(4) ? 1 + numbers.Below(64) : 1 << numbers.Below(4), length - offset);
        Span<byte> data = _configuration.AsSpan(0, count);
        if (!write)
        {
            _device.ReadConfiguration(offset, data);
            return;
        }
        for (int i = 0; i < count; i++)
            data[i] = (byte)(numbers.OneIn(2) ? 0 : numbers.Next());
        _device.WriteConfiguration(offset, data);
    }

    private sealed class Sum : ICounterSink
    {
        public long Requests { get; private set; }

        public void Add(string name, long value)
        {
            if (name.StartsWith("queue", StringComparison.Ordinal) && name.EndsWith("_requests", StringComparison.Ordinal))
                Requests += value;
        }
    }
}
