using System.Collections.Concurrent;
using Vmm.Core.Memory;
using Vmm.VhostUserBackEnd;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using Vmm.Virtio.Tests.Driver;
using Vmm.Virtio.VhostUser;
using BackEndOfTest = Vmm.VhostUserBackEnd.BackEnd;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>A device with the tests' back-end on the other side of a socket, and a driver of a guest without KVM.</summary>
internal sealed class FrontEndFixture : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("vmm-vu");
    private GuestDriver? _driver;

    public FrontEndFixture(BackEndOfTest backEnd, Func<VhostUserSettings, VhostUserSettings>? adjust = null, bool connect = true)
    {
        BackEnd = backEnd;
        Socket = Path.Combine(_directory.FullName, "s");
        Settings = new VhostUserSettings
        {
            Id = "vu0",
            Socket = Socket,
            Type = (VirtioDeviceType)42,
            QueueSizes = [.. Enumerable.Repeat((ushort)128, backEnd.Device.QueueCount)],
            ConfigurationLength = backEnd.Config.Length,
            Timeouts = new VhostUserTimeouts(Request: 1_000, Stop: 2_000, Retry: 20, ConfigurationReads: 20) { BackEndReply = 500 },
            Reconnect = 20,
        };
        if (adjust != null)
            Settings = adjust(Settings);
        Server = Settings.Server ? BackEndServer.Connect(backEnd, Settings.Socket) : BackEndServer.Listen(backEnd, Settings.Socket);
        if (connect)
            Connect();
    }

    public BackEndOfTest BackEnd { get; }

    public BackEndServer Server { get; private set; }

    public string Socket { get; }

    public VhostUserSettings Settings { get; }

    public Vmm.Virtio.VhostUser.VhostUserBackEnd FrontEnd { get; private set; } = null!;

    public VhostUserDevice Device { get; private set; } = null!;

    public FakeSlots Slots { get; } = new();

    public ConcurrentQueue<string> Log { get; } = new();

    /// <summary>The guest's driver; made at the first use, with the features of a good one.</summary>
    public GuestDriver Driver => _driver ??= new GuestDriver(Device, RingFeatures.Of(0), ~VirtioFeatures.AllQueues);

    public SharedMemoryWindow Window(byte id) => (SharedMemoryWindow)Device.SharedMemory.Single(region => region.Id == id);

    public void Connect()
    {
        FrontEnd = Vmm.Virtio.VhostUser.VhostUserBackEnd.Open(Settings, Log.Enqueue, 10_000);
        Device = new VhostUserDevice(FrontEnd, Slots, SharedMemoryQuota.ForMachine().ForDevice());
    }

    /// <summary>Another back-end process in the place of the first.</summary>
    public void RestartBackEnd()
    {
        Server.Dispose();
        Server = BackEndServer.Listen(BackEnd, Socket);
    }

    /// <summary>Waits until a sentence with these words is in the log.</summary>
    public void WaitForLog(string words) => WaitFor(() => Log.Any(line => line.Contains(words, StringComparison.Ordinal)), $"'{words}' in the log");

    public void WaitFor(Func<bool> condition, string what)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (!condition())
        {
            if (clock.Elapsed > TimeSpan.FromSeconds(20))
                Assert.Fail($"Waited for {what}. Log:\n{string.Join('\n', Log)}\nTranscript:\n{BackEnd.Transcript}");
            Thread.Sleep(2);
        }
    }

    /// <summary>What the device wrote into the next buffer that it gives back.</summary>
    public byte[] WaitUsed(int queue = 0)
    {
        try
        {
            return Driver.Queues[queue].Read(Driver.Queues[queue].WaitUsed());
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"{e.Message} Log:\n{string.Join('\n', Log)}\nTranscript:\n{BackEnd.Transcript}");
        }
    }

    /// <summary>The device still does what it is for.</summary>
    public void AssertServes(int queue = 0)
    {
        Assert.True(Driver.Queues[queue].Add([1, 2, 3], writable: 3) >= 0);
        Driver.Queues[queue].Kick();
        Assert.Equal([1, 2, 3], WaitUsed(queue));
    }

    public void Dispose()
    {
        _driver?.Stop();
        Device?.Dispose();
        _driver?.Dispose();
        FrontEnd?.Dispose();
        Server.Dispose();
        _directory.Delete(recursive: true);
    }
}
