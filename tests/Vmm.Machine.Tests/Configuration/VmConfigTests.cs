using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Tests.Configuration;

public sealed class VmConfigTests
{
    private static readonly string[] s_noFile = [];

    internal static VmConfig Parse(params string[] args)
    {
        var builder = new VmConfigBuilder();
        for (int i = 0; i < args.Length; i += 2)
            builder.AddOption(VmConfig.Options.Single(option => option.Name == args[i]), args[i + 1]);
        return builder.Build();
    }

    [Fact]
    public void Nothing_given_is_the_documented_defaults()
    {
        VmConfig config = Parse(s_noFile);
        Assert.Equal(new VmConfig(), config);
        Assert.Equal(1, config.Cpus.Boot);
        Assert.Equal(512 * ByteSize.MiB, config.Memory.Size);
        Assert.Equal(ConsoleBackend.Tty, config.Serial.Backend);
        Assert.Equal(ConsoleBackend.Off, config.DebugConsole.Backend);
        Assert.True(config.Acpi.Enabled);
        Assert.Equal(RebootAction.Exit, config.OnReboot.Action);
        Assert.Equal(LogLevel.Warn, config.Log.Level);
    }

    [Fact]
    public void Every_option_sets_its_value()
    {
        VmConfig config = Parse(
            "--cpus", "boot=2,max=4", "--memory", "size=2G,shared=on,hugepages=on,hugepage_size=1G,prefault=on", "--kernel", "/a,b=\"c",
            "--initramfs", "i", "--cmdline", "console=ttyS0, \"x\"", "--boot", "protocol=pvh", "--serial", "socket=\"a,b\"",
            "--debug-console", "file=d", "--acpi", "off", "--on-reboot", "restart", "--log-level", "trace", "--log-file", "l", "--log-format", "json");
        Assert.Equal(new CpusConfig(2, 4), config.Cpus);
        Assert.Equal(new MemoryConfig(2 * ByteSize.GiB, true, true, ByteSize.GiB, true), config.Memory);
        Assert.Equal(new PayloadConfig("/a,b=\"c", "i", "console=ttyS0, \"x\""), config.Payload);
        Assert.Equal(BootProtocol.Pvh, config.Boot.Protocol);
        Assert.Equal(new ConsoleConfig(ConsoleBackend.Socket, "a,b"), config.Serial);
        Assert.Equal(new ConsoleConfig(ConsoleBackend.File, "d"), config.DebugConsole);
        Assert.False(config.Acpi.Enabled);
        Assert.Equal(RebootAction.Restart, config.OnReboot.Action);
        Assert.Equal(new LogConfig(LogLevel.Trace, "l", LogFormat.Json), config.Log);
        config.CheckRunnable();
    }

    [Theory]
    [InlineData("--cpus", "boot=0", "1 to 1024")]
    [InlineData("--cpus", "boot=1025", "1 to 1024")]
    [InlineData("--cpus", "boot=99999999999999999999", "1 to 1024")]
    [InlineData("--cpus", "boot=two", "not a whole number")]
    [InlineData("--cpus", "boot=-1", "not a whole number")]
    [InlineData("--cpus", "boot", "has no value")]
    [InlineData("--cpus", "boot=[1]", "not a list")]
    [InlineData("--cpus", "boot=4,max=2", "below boot=4")]
    [InlineData("--cpus", "bot=4", "Did you mean boot?")]
    [InlineData("--cpus", "xyzzy=4", "It takes boot, max, affinity.")]
    [InlineData("--memory", "size=1M", "64M to 64T")]
    [InlineData("--memory", "size=65T", "64M to 64T")]
    [InlineData("--memory", "size=99999999999999999999G", "out of range")]
    [InlineData("--memory", "size=12Q", "not a size")]
    [InlineData("--memory", "size=M", "not a size")]
    [InlineData("--memory", "size=67108865", "not a multiple of 4K")]
    [InlineData("--memory", "size=65M,hugepages=on", "not a multiple of 2M")]
    [InlineData("--memory", "hugepage_size=2M", "without hugepages=on")]
    [InlineData("--memory", "hugepages=on,hugepage_size=4M", "x86 has 2M and 1G")]
    [InlineData("--memory", "shared=maybe", "neither on nor off")]
    [InlineData("--memory", "hugepage=on", "Did you mean hugepages?")]
    [InlineData("--boot", "protocol=phv", "Did you mean pvh?")]
    [InlineData("--kernel", "", "empty path")]
    [InlineData("--cmdline", "a\nb", "U+000A")]
    [InlineData("--serial", "tyt", "Did you mean tty?")]
    [InlineData("--serial", "tty,null", "not 2 of them")]
    [InlineData("--serial", "file", "has no value")]
    [InlineData("--serial", "tty=1", "takes no value")]
    [InlineData("--serial", "off", "there is no key 'off'")]
    [InlineData("--acpi", "yes", "neither on nor off")]
    [InlineData("--on-reboot", "restrat", "Did you mean restart?")]
    [InlineData("--log-level", "warning", "error, warn, info, debug, trace")]
    public void Each_mistake_names_the_option_and_the_remedy(string option, string text, string expected)
    {
        var error = Assert.Throws<VmmException>(() => Parse(option, text));
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        Assert.StartsWith(option + ": ", error.Message, StringComparison.Ordinal);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void More_memory_than_the_host_has_is_refused()
    {
        var memory = new MemoryConfig(2 * ByteSize.GiB);
        memory.CheckAgainstHost(2 * ByteSize.GiB);
        Assert.Contains("1024M", Assert.Throws<VmmException>(() => memory.CheckAgainstHost(ByteSize.GiB)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Running_needs_a_kernel_and_consoles_of_their_own()
    {
        Assert.Contains("--kernel", Assert.Throws<VmmException>(() => Parse(s_noFile).CheckRunnable()).Message, StringComparison.Ordinal);
        VmConfig same = Parse("--kernel", "k", "--serial", "file=x", "--debug-console", "file=x");
        Assert.Contains("both have 'x'", Assert.Throws<VmmException>(same.CheckRunnable).Message, StringComparison.Ordinal);
    }
}
