using Vmm.Core;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Conformance;
using Vmm.VhostUserBackEnd.Rings;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using Vmm.Virtio.Tests.Driver;
using Vmm.Virtio.VhostUser;
using FrontEndOfDevice = Vmm.Virtio.VhostUser.VhostUserBackEnd;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>
/// This front-end in all scenarios of the back-end tool: the rules for mappings with each comment of their review, migration's error paths, and
/// every kind of faulty back-end. After each, a guest resets its device and is served by a good back-end.
/// </summary>
public sealed class ConformanceTests
{
    public static TheoryData<string> Names => [.. Scenarios.All.Select(scenario => scenario.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Passes(string name)
    {
        Scenario scenario = Scenarios.Named(name);
        string path = Path.Combine(Path.GetTempPath(), $"vmm-conformance-{Guid.NewGuid():n}");
        Guest? guest = null;
        ScenarioResult result = ConformanceRunner.Run(scenario, new ConformanceOptions
        {
            Socket = path,
            ComesBack = true,
            Device = () => new Anything(),
            StartTimeout = TimeSpan.FromSeconds(20),
            ReactionTimeout = TimeSpan.FromSeconds(2),
            SilenceTimeout = TimeSpan.FromSeconds(5),
            OnListening = () => guest = new Guest(path, migrates: scenario.Rule == "migration"),
            OnEnd = () => guest?.Dispose(),
        });
        Assert.True(result.Outcome == ScenarioOutcome.Pass, $"{result.Outcome}: {result.Why}\n{string.Join('\n', guest?.Log ?? [])}\n{result.Transcript}");
    }

    /// <summary>A device with everything.</summary>
    private sealed class Anything : DeviceModel
    {
        internal const int ConfigurationLength = 16;

        public override byte[] InitialConfig => new byte[ConfigurationLength];

        public override ulong[] ShmemSizes => Scenarios.RegionSizes;

        public override int Handle(BackEndSession session, Vring queue, Chain chain) => chain.Write(0, chain.ReadAll());
    }

    /// <summary>
    /// A person who starts the machine again when its back-end cannot be used, and a guest that resets its device when that says so.
    /// </summary>
    private sealed class Guest : IDisposable
    {
        private readonly VhostUserSettings _settings;
        private readonly bool _migrates;
        private readonly Thread _thread;
        private readonly List<string> _log = [];
        private volatile bool _stop;

        internal Guest(string path, bool migrates)
        {
            _settings = new VhostUserSettings
            {
                Id = "vu0",
                Socket = path,
                Type = (VirtioDeviceType)42,
                QueueSizes = [64],
                ConfigurationLength = Anything.ConfigurationLength,
                Timeouts = new VhostUserTimeouts(Request: 2_500, Stop: 2_500, Retry: 20, ConfigurationReads: 20) { BackEndReply = 500 },
                Reconnect = 20,
            };
            _migrates = migrates;
            _thread = new Thread(Run) { IsBackground = true };
            _thread.Start();
        }

        internal IReadOnlyList<string> Log
        {
            get
            {
                lock (_log)
                    return [.. _log];
            }
        }

        public void Dispose()
        {
            _stop = true;
            Assert.True(_thread.Join(TimeSpan.FromSeconds(60)), "The guest does not come to an end.");
        }

        private void Run()
        {
            while (!_stop)
            {
                try
                {
                    using FrontEndOfDevice frontEnd = FrontEndOfDevice.Open(_settings, Say, 500);
                    Live(frontEnd);
                }
                catch (VmmException e)
                {
                    Say(e.Message);
                    Thread.Sleep(20);
                }
            }
        }

        private void Live(FrontEndOfDevice frontEnd)
        {
            var device = new VhostUserDevice(frontEnd, new FakeSlots(), SharedMemoryQuota.ForMachine().ForDevice());
            ulong at = 1UL << 40;
            foreach (SharedMemoryRegion region in device.SharedMemory)
            {
                region.Place(at);
                at += region.Length;
            }
            var driver = new GuestDriver(device, default, ~VirtioFeatures.AllQueues, ramBytes: 1 << 20);
            try
            {
                driver.Start();
                bool migrated = !_migrates;
                while (!_stop)
                {
                    if (driver.Host.IsResetNeeded)
                    {
                        driver.Host.ForgetResets();
                        driver.Reset();
                        driver.Start();
                    }
                    if (!migrated)
                    {
                        migrated = true;
                        Migrate(frontEnd, driver);
                    }
                    Thread.Sleep(5);
                }
            }
            finally
            {
                driver.Stop();
                device.Dispose();
                driver.Dispose();
            }
        }

        /// <summary>As the source of a migration that is given up at its end, or wherever it fails.</summary>
        private void Migrate(FrontEndOfDevice frontEnd, GuestDriver driver)
        {
            using var log = new Vmm.Virtio.VhostUser.DirtyLog(driver.Memory);
            Try(() => frontEnd.StartLogging(log));
            driver.Stop();
            Try(() => _ = frontEnd.SaveState());
            frontEnd.StopLogging();
            driver.Restart();
        }

        private void Try(Action action)
        {
            try
            {
                action();
            }
            catch (VmmException e)
            {
                Say(e.Message);
            }
        }

        private void Say(string sentence)
        {
            lock (_log)
                _log.Add(sentence);
        }
    }
}
