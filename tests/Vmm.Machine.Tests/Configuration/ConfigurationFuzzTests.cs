using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Machine.Configuration;
using Vmm.Virtio.Transport;

namespace Vmm.Machine.Tests.Configuration;

/// <summary>Whatever somebody writes, the answer is a configuration or one sentence about what is wrong with it.</summary>
public sealed class ConfigurationFuzzTests
{
    private const int Cases = 100_000;

    private static readonly string[] s_optionSeeds =
    [
        "boot=2,max=4", "size=512M,shared=on,hugepages=on,hugepage_size=2M,prefault=off", "protocol=pvh", "tty", "file=\"a, \\\"b\\\"\"", "socket=/tmp/x",
        "a=[b,c,\"d, e\"],f=\"\"", "on", "restart", "trace",
        "path=/d,readonly=on,bw_size=1M,bw_refill_time=100", "tap=tap0,mac=02:00:00:00:00:01,mtu=1500", "fd=[3,4]", "count=2,affinity=[0@0-1,1@2+3]", "file=m,interval=3",
    ];

    private const string JsonSeed =
        """{"cpus":{"boot":2,"max":4},"memory":{"size":"512M","shared":true,"hugepages":"on"},"payload":{"kernel":"k","cmdline":"a b"},"serial":{"file":"x"},"debug_console":"off","acpi":"on","on_reboot":"exit","log":{"level":"warn"},"bus":"mmio","io_threads":{"count":2,"affinity":["0@1"]},"disks":[{"path":"d","num_queues":2},"path=e,readonly=on"],"net":[{"fd":[3,4],"mac":"02:00:00:00:00:01"}],"rng":"src=/dev/urandom","balloon":{"size":"1M"},"metrics":"file=m"}""";

    [Fact]
    public void The_options_survive_mutated_text()
    {
        var random = new Random(1);
        int accepted = 0;
        for (int i = 0; i < Cases; i++)
        {
            OptionSchema option = VmConfig.Options[random.Next(VmConfig.Options.Count)];
            string text = Mutate(random, s_optionSeeds[random.Next(s_optionSeeds.Length)], ",=[]\"\\ \0\nabMG19");
            try
            {
                new VmConfigBuilder().AddOption(option, text).Build();
                accepted++;
            }
            catch (VmmException e) when (e.Kind == VmmErrorKind.Configuration)
            {
                Assert.DoesNotContain('\n', e.Message);
            }
        }

        // Both ways out are taken; else the mutations would test nothing.
        Assert.InRange(accepted, Cases / 100, Cases - (Cases / 100));
    }

    [Fact]
    public void The_json_reader_survives_mutated_files()
    {
        var random = new Random(2);
        int accepted = 0;
        for (int i = 0; i < Cases; i++)
        {
            byte[] json = Encoding.UTF8.GetBytes(Mutate(random, JsonSeed, "{}[]\",:0 9\\nt\0"));
            if (random.Next(10) == 0)
                json[random.Next(json.Length)] = (byte)random.Next(256);
            try
            {
                var builder = new VmConfigBuilder();
                ConfigurationSources.AddJson(builder, "vm.json", json);
                builder.Build();
                accepted++;
            }
            catch (VmmException e) when (e.Kind == VmmErrorKind.Configuration)
            {
                Assert.DoesNotContain('\n', e.Message);
            }
        }

        Assert.InRange(accepted, Cases / 1000, Cases - (Cases / 100));
    }

    [Fact]
    public void What_is_printed_reads_as_the_same_configuration() =>
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            VmConfig config = Any(new Random(seed));
            return ConfigurationSourcesTests.Json(VmConfigJson.Write(config)) == config && FromOptions(config) == config;
        }).QuickCheckThrowOnFailure();

    private static VmConfig FromOptions(VmConfig config)
    {
        var builder = new VmConfigBuilder()
            .AddOption(CpusConfig.Option, config.Cpus.ToOptionText())
            .AddOption(MemoryConfig.Option, config.Memory.ToOptionText())
            .AddOption(PayloadConfig.CommandLineOption, config.Payload.CommandLine)
            .AddOption(BootConfig.Option, config.Boot.ToOptionText())
            .AddOption(ConsoleConfig.SerialOption, config.Serial.ToOptionText())
            .AddOption(ConsoleConfig.DebugOption, config.DebugConsole.ToOptionText())
            .AddOption(AcpiConfig.Option, config.Acpi.ToOptionText())
            .AddOption(RebootConfig.Option, config.OnReboot.ToOptionText())
            .AddOption(LogConfig.LevelOption, config.Log.LevelName)
            .AddOption(LogConfig.FormatOption, config.Log.FormatName);
        builder.AddOption(BusConfig.Option, config.Bus.ToOptionText())
            .AddOption(IoThreadsConfig.Option, Text(config.IoThreads))
            .AddOption(ConsoleConfig.VirtioOption, config.Console.ToOptionText())
            .AddOption(WatchdogConfig.Option, config.Watchdog.ToOptionText())
            .AddOption(MetricsConfig.Option, Text(config.Metrics));
        foreach (DiskConfig disk in config.Disks)
            builder.AddOption(DiskConfig.Option, Text(disk));
        foreach (NetConfig net in config.Net)
            builder.AddOption(NetConfig.Option, Text(net));
        foreach (PmemConfig pmem in config.Pmem)
            builder.AddOption(PmemConfig.Option, Text(pmem));
        foreach (FsConfig fs in config.Fs)
            builder.AddOption(FsConfig.Option, Text(fs));
        foreach (GpuConfig gpu in config.Gpu)
            builder.AddOption(GpuConfig.Option, Text(gpu));
        foreach (VhostUserConfig device in config.VhostUser)
            builder.AddOption(VhostUserConfig.Option, Text(device));
        if (config.Vsock is { } vsock)
            builder.AddOption(VsockConfig.Option, Text(vsock));
        if (config.Rng is { } rng)
            builder.AddOption(RngConfig.Option, Text(rng));
        if (config.Balloon is { } balloon)
            builder.AddOption(BalloonConfig.Option, Text(balloon));
        if (config.Payload.Kernel is { } kernel)
            builder.AddOption(PayloadConfig.KernelOption, kernel);
        if (config.Payload.Initramfs is { } initramfs)
            builder.AddOption(PayloadConfig.InitramfsOption, initramfs);
        if (config.Log.File is { } file)
            builder.AddOption(LogConfig.FileOption, file);
        return builder.Build();
    }

    private static string Text(IConfigSection section) => OptionTextWriter.Of(section);

    private static VmConfig Any(Random random)
    {
        var names = new List<string>();
        int boot = random.Next(1, 1025);
        bool huge = random.Next(2) == 0;
        ulong hugeSize = huge && random.Next(2) == 0 ? ByteSize.GiB : 2 * ByteSize.MiB;
        ulong unit = huge ? hugeSize : 4096;
        ulong size = ((ulong)random.NextInt64((long)(ByteSize.TiB / unit)) * unit) + ByteSize.GiB;
        var config = new VmConfig
        {
            Cpus = new CpusConfig(boot, random.Next(2) == 0 ? null : random.Next(boot, 1025)) { Affinity = Affinity(random, boot) },
            Memory = new MemoryConfig(size, random.Next(2) == 0, huge, hugeSize, random.Next(2) == 0, (ulong)random.Next(2) * ByteSize.GiB),
            Payload = new PayloadConfig(Maybe(random), Maybe(random), random.Next(2) == 0 ? "" : Text(random)),
            Boot = new BootConfig((BootProtocol)random.Next(5)),
            Serial = Console(random, random.Next(1, 6)),
            DebugConsole = Console(random, random.Next(0, 6)),
            Acpi = new AcpiConfig(random.Next(2) == 0),
            OnReboot = new RebootConfig((RebootAction)random.Next(2)),
            Log = new LogConfig((LogLevel)random.Next(5), Maybe(random), (LogFormat)random.Next(2)),
            Bus = new BusConfig((VirtioBus)random.Next(2)),
            IoThreads = new IoThreadsConfig(3, Affinity(random, 3)),
            Disks = List(random, () => random.Next(3) == 0
                ? new DiskConfig("", false, false, random.Next(1, 65), 1 << random.Next(2, 11), null, DiskEngine.Auto, new RateLimitOptions(null, null), BackEnd(random), Virtio(random, names))
                : new DiskConfig(
                    Text(random), random.Next(2) == 0, random.Next(2) == 0, random.Next(1, 65), 1 << random.Next(2, 11), random.Next(2) == 0 ? null : "abc,[]",
                    (DiskEngine)random.Next(3), new RateLimitOptions(Bucket(random), Bucket(random)), null, Virtio(random, names))),
            Net = List(random, () => random.Next(3) == 0
                ? new NetConfig(
                    null, ConfigList<int>.Empty, null, null, random.Next(2) == 0 ? null : "02:00:00:00:00:01", null, random.Next(2) == 0 ? null : 1500, 2 * random.Next(1, 65),
                    1 << random.Next(2, 11), true, true, true, new RateLimitOptions(null, null), BackEnd(random), Virtio(random, names))
                : AnyNet(random, Virtio(random, names))),
            Fs = List(random, () => new FsConfig(
                random.Next(2) == 0 ? null : Text(random), random.Next(1, 65), 1 << random.Next(2, 11), BackEnd(random), Virtio(random, names))),
            Gpu = List(random, () => new GpuConfig(
                8 * random.Next(40, 512), random.Next(200, 2401), Maybe(random), 1 << random.Next(2, 11), BackEnd(random), Virtio(random, names))),
            Vsock = random.Next(2) == 0 ? null : new VsockConfig(BackEnd(random), Virtio(random, names)),
            VhostUser = List(random, () => new VhostUserConfig(
                random.Next(1, 64), new ConfigList<int>(1 << random.Next(1, 16), 2), random.Next(257), BackEnd(random), Virtio(random, names))),
            Pmem = List(random, () => new PmemConfig(Text(random), random.Next(2) == 0 ? null : (ulong)random.Next(1, 9999) << 21, random.Next(2) == 0, Virtio(random, names))),
            Console = Console(random, random.Next(0, 6)),
            Rng = random.Next(2) == 0 ? null : new RngConfig(Maybe(random), Virtio(random, names)),
            Balloon = random.Next(2) == 0
                ? null
                : new BalloonConfig((ulong)random.Next(9999) << 12, random.Next(2) == 0, random.Next(2) == 0, random.Next(0, 99), Virtio(random, names)),
            Watchdog = new WatchdogConfig((WatchdogReaction)random.Next(5)),
            Metrics = new MetricsConfig(Maybe(random), random.Next(1, 86401)),
        };
        // Others cannot serve a guest whose memory they do not see.
        return config.HasBackEnds ? config with { Memory = config.Memory with { Shared = true } } : config;
    }

    private static BackEndOptions BackEnd(Random random)
    {
        bool exec = random.Next(2) == 0;
        return new BackEndOptions(
            exec ? null : Text(random), exec ? $"{Text(random)}{{fd}}" : null, !exec && random.Next(2) == 0, random.Next(2) == 0 ? null : random.Next(1, 60001),
            random.Next(2) == 0, random.Next(2) == 0 ? null : random.Next(1, 9999));
    }

    private static NetConfig AnyNet(Random random, VirtioOptions virtio)
    {
        int[] fds = random.Next(2) == 0 ? [] : [3, 5];
        bool ip = random.Next(2) == 0;
        return new NetConfig(
            fds.Length != 0 || random.Next(2) == 0 ? null : "vmtap,0[", new ConfigList<int>(fds), ip ? "10.0.0.1" : null, ip ? "255.0.0.0" : null,
            random.Next(2) == 0 ? null : "02:00:00:00:00:01", random.Next(2) == 0 ? null : "03:ff:00:00:00:01", random.Next(2) == 0 ? null : random.Next(68, 65536),
            fds.Length != 0 ? 4 : 2 * random.Next(1, 65), 1 << random.Next(2, 11), random.Next(2) == 0, random.Next(2) == 0, random.Next(2) == 0,
            new RateLimitOptions(Bucket(random), Bucket(random)), null, virtio);
    }

    private static TokenBucketOptions? Bucket(Random random) =>
        random.Next(2) == 0 ? null : new TokenBucketOptions((ulong)random.NextInt64(1, 1L << 62), (ulong)random.NextInt64(1L << 62), random.Next(1, 86400001));

    // Names are unique in a machine.
    private static string Name(List<string> names)
    {
        names.Add($"dev_{names.Count}");
        return names[^1];
    }

    private static VirtioOptions Virtio(Random random, List<string> names) => new(
        random.Next(2) == 0 ? null : Name(names), random.Next(3) switch { 0 => null, 1 => VirtioBus.Pci, _ => VirtioBus.Mmio }, random.Next(2) == 0);

    private static ConfigList<CpuAffinity> Affinity(Random random, int threads) => random.Next(3) switch
    {
        0 => ConfigList<CpuAffinity>.Empty,
        1 when threads > 1 => new ConfigList<CpuAffinity>(new CpuAffinity(0, "0-3+9"), new CpuAffinity(threads - 1, "1")),
        _ => new ConfigList<CpuAffinity>(new CpuAffinity(0, "7")),
    };

    private static ConfigList<T> List<T>(Random random, Func<T> item)
    {
        var items = new T[random.Next(3)];
        for (int i = 0; i < items.Length; i++)
            items[i] = item();
        return new ConfigList<T>(items);
    }

    private static ConsoleConfig Console(Random random, int backend) =>
        new((ConsoleBackend)backend, (ConsoleBackend)backend is ConsoleBackend.File or ConsoleBackend.Socket ? Text(random) : null);

    private static string? Maybe(Random random) => random.Next(2) == 0 ? null : Text(random);

    private static string Text(Random random)
    {
        const string alphabet = "ab ,=[]\"\\'/{}:é漢#$";
        var text = new StringBuilder();
        for (int i = random.Next(1, 12); i > 0; i--)
            text.Append(alphabet[random.Next(alphabet.Length)]);
        return text.ToString();
    }

    private static string Mutate(Random random, string seed, string alphabet)
    {
        var text = new StringBuilder(seed);
        for (int i = random.Next(0, 4); i > 0 && text.Length > 0; i--)
        {
            int at = random.Next(text.Length);
            switch (random.Next(4))
            {
                case 0:
                    text[at] = alphabet[random.Next(alphabet.Length)];
                    break;
                case 1:
                    text.Insert(at, alphabet[random.Next(alphabet.Length)]);
                    break;
                case 2:
                    text.Remove(at, random.Next(1, Math.Min(8, text.Length - at) + 1));
                    break;
                default:
                    text.Insert(at, text.ToString(at, Math.Min(random.Next(1, 20), text.Length - at)));
                    break;
            }
        }

        return text.Length == 0 ? "x" : text.ToString();
    }
}
