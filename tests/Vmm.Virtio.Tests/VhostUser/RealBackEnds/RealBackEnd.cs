using System.Collections.Concurrent;
using System.Diagnostics;
using Vmm.Core;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using Vmm.Virtio.Tests.Driver;
using Vmm.Virtio.VhostUser;

namespace Vmm.Virtio.Tests.VhostUser.RealBackEnds;

/// <summary>A program of the distribution as the back-end of a device, whose driver is a test's.</summary>
internal sealed class RealBackEnd : IDisposable
{
    private readonly Process _process;
    private readonly ConcurrentQueue<string> _log = new();
    private GuestDriver? _driver;

    /// <summary>Starts it.</summary>
    /// <param name="shared">A directory, which it sees as /mnt; the socket is to be "s" in it.</param>
    /// <param name="command">What to run.</param>
    /// <param name="type">The device.</param>
    /// <param name="queues">Its queues.</param>
    /// <param name="adjust">Other settings.</param>
    /// <param name="around">As of <see cref="DebianRoot.Start"/>.</param>
    public RealBackEnd(
        string shared, string command, VirtioDeviceType type, int queues, Func<VhostUserSettings, VhostUserSettings> adjust, string around = "")
    {
        string socket = Path.Combine(shared, "s");
        File.Delete(socket);
        _process = DebianRoot.Start(shared, command, around);
        DataReceivedEventHandler tell = (_, line) => _log.Enqueue(line.Data ?? "");
        _process.ErrorDataReceived += tell;
        _process.OutputDataReceived += tell;
        _process.BeginErrorReadLine();
        _process.BeginOutputReadLine();
        try
        {
            FrontEnd = Vmm.Virtio.VhostUser.VhostUserBackEnd.Open(
                adjust(new VhostUserSettings { Id = "real0", Socket = socket, Type = type, QueueSizes = [.. Enumerable.Repeat((ushort)128, queues)] }), _log.Enqueue, 30_000);
        }
        catch (VmmException e)
        {
            _process.Kill();
            throw new InvalidOperationException($"{e.Message}\n{Log}");
        }
        Device = new VhostUserDevice(FrontEnd, new FakeSlots(), SharedMemoryQuota.ForMachine().ForDevice());
    }

    public Vmm.Virtio.VhostUser.VhostUserBackEnd FrontEnd { get; }

    public VhostUserDevice Device { get; }

    /// <summary>Its driver, made at the first use.</summary>
    public GuestDriver Driver => _driver ??= new GuestDriver(Device, RingFeatures.Of(0), ~VirtioFeatures.AllQueues);

    /// <summary>What the program and our side of it said.</summary>
    public string Log => string.Join('\n', _log);

    /// <summary>Saves its state, as a migration does: what it writes is logged while its queues stand still. They do from then on.</summary>
    public byte[] Save()
    {
        using var log = new DirtyLog(Driver.Memory);
        FrontEnd.StartLogging(log);
        Driver.Stop();
        try
        {
            return FrontEnd.SaveState() ?? throw new InvalidOperationException("It has no state.");
        }
        finally
        {
            FrontEnd.StopLogging();
        }
    }

    /// <summary>Waits until it has said something.</summary>
    public void WaitForLog(string words)
    {
        var clock = Stopwatch.StartNew();
        while (!Log.Contains(words, StringComparison.Ordinal))
        {
            if (clock.Elapsed > TimeSpan.FromSeconds(20))
                throw new TimeoutException($"It does not say '{words}'.\n{Log}");
            Thread.Sleep(5);
        }
    }

    /// <summary>Waits for its end.</summary>
    public int WaitForExit() => _process.WaitForExit(20_000) ? _process.ExitCode : throw new TimeoutException($"It does not end.\n{Log}");

    public void Dispose()
    {
        _driver?.Stop();
        Device.Dispose();
        _driver?.Dispose();
        FrontEnd.Dispose();
        if (!_process.HasExited)
            _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
