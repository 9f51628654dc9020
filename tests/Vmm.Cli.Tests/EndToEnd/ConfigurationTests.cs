using System.Text;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>Configurations that are wrong, from every source.</summary>
public sealed class ConfigurationTests : IDisposable
{
    private readonly VmmProgram _vmm = new();

    public void Dispose() => _vmm.Dispose();

    [Theory]
    [InlineData("""{"memroy":{"size":"1G"}}""", "memroy", "Did you mean memory?")]
    [InlineData("""{"memory":{"sise":"1G"}}""", "memory.sise", "Did you mean size?")]
    [InlineData("""{"size":"1G"}""", "size", "size is a key of memory")]
    [InlineData("""{"memory":{"size":"1G",}}{""", "vm.json", "JSON")]
    [InlineData("""{"memory":{"size":""", "vm.json", "JSON")]
    [InlineData("", "vm.json", "JSON")]
    [InlineData("null", "vm.json", "JSON")]
    [InlineData("[]", "vm.json", "JSON")]
    [InlineData("17", "vm.json", "JSON")]
    [InlineData("\u0000\u0001\u0002", "vm.json", "JSON")]
    [InlineData("""{"memory":{"size":"1G","size":"2G"}}""", "vm.json", "size")]
    [InlineData("""{"memory":{"size":"1G"},"memory":{"size":"2G"}}""", "vm.json", "memory")]
    [InlineData("""{"memory":{"size":"1G"},"Memory":{"size":"2G"}}""", "vm.json", "emory")]
    [InlineData("""{"memory":{"size":["1G"]}}""", "memory.size", "not a list")]
    [InlineData("""{"memory":{"size":{"a":"1G"}}}""", "memory.size", "not an object")]
    [InlineData("""{"memory":{"size":true}}""", "memory.size", "not a size")]
    [InlineData("""{"memory":{"size":1.5e9}}""", "memory.size", "not a size")]
    [InlineData("""{"memory":{"shared":"perhaps"}}""", "memory.shared", "neither on nor off")]
    [InlineData("""{"memory":[1,2]}""", "memory", "")]
    [InlineData("""{"cpus":{"boot":null}}""", "cpus", "boot")]
    [InlineData("""{"cpus":{"boot":"0"}}""", "cpus.boot", "1 to 1024")]
    [InlineData("""{"serial":"tyt"}""", "serial", "Did you mean tty?")]
    [InlineData("""{"serial":{"tty":true,"null":true}}""", "serial", "one of")]
    [InlineData("""{"serial":{"file":"a","socket":"b"}}""", "serial", "one of")]
    [InlineData("""{"serial":{"file":""}}""", "serial.file", "")]
    [InlineData("""{"payload":{"cmdline":"a\nb"}}""", "payload.cmdline", "control character")]
    [InlineData("""{"payload":{"kernel":"a\u0000b"}}""", "payload.kernel", "zero byte")]
    [InlineData("""{"on_reboot":"maybe"}""", "on_reboot", "restart")]
    [InlineData("""{"a:b":{"c":1}}""", "vm.json", "")]
    public void A_file(string json, string what, string next) => File_(Encoding.UTF8.GetBytes(json)).IsOneLine(ExitCodes.BadArguments, what, next);

    [Fact]
    public void A_file_of_a_gigabyte() =>
        _vmm.Run("config", "--config", _vmm.MakeSparse("vm.json", 1L << 30, "{"u8)).IsOneLine(ExitCodes.BadArguments, "vm.json", "larger than 1 MiB");

    [Theory]
    [InlineData("{\"a\":", 100_000)]
    [InlineData("[", 500_000)]
    [InlineData("{\"memory\":", 50)]
    public void A_file_nested_deeply(string text, int times) =>
        File_(Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(text, times)))).IsOneLine(ExitCodes.BadArguments, "vm.json");

    [Fact]
    public void A_key_of_a_megabyte()
    {
        Outcome outcome = File_(Encoding.UTF8.GetBytes("{\"" + new string('x', 1_000_000) + "\":1}")).IsOneLine(ExitCodes.BadArguments, "vm.json");
        Assert.True(outcome.Error.Length < 1000);
    }

    [Fact]
    public void Random_bytes()
    {
        byte[] bytes = new byte[5000];
        new Random(5).NextBytes(bytes);
        File_(bytes).IsOneLine(ExitCodes.BadArguments, "vm.json", "JSON");
    }

    [Theory]
    [InlineData("/nowhere/vm.json")]
    [InlineData("/")]
    [InlineData("")]
    public void A_file_that_is_none(string path) => _vmm.Run("config", "--config", path).IsOneLine(ExitCodes.BadArguments, "--config");

    [Theory]
    [InlineData("VMM_MEMROY", "size=1G", "Did you mean memory?")]
    [InlineData("VMM_MEMORY__SISE", "1G", "Did you mean size?")]
    [InlineData("VMM_MEMORY__SIZE", "lots", "not a size")]
    [InlineData("VMM_MEMORY__SIZE__X", "1G", "VMM_MEMORY")]
    [InlineData("VMM_MEMORY", "size=1G,size=2G", "given twice")]
    [InlineData("VMM_CPUS__BOOT", "0", "1 to 1024")]
    [InlineData("VMM_CPUS__BOOT", "", "boot")]
    [InlineData("VMM_CPUS", "boot", "boot=value")]
    [InlineData("VMM_SERIAL", "tyt", "Did you mean tty?")]
    [InlineData("VMM_LOG__LEVEL", "loud", "not one of")]
    [InlineData("VMM_", "x", "VMM_")]
    public void The_environment(string name, string value, string expected)
    {
        _vmm.Variables[name] = value;
        _vmm.Run("config").IsOneLine(ExitCodes.BadArguments, name.Split("__")[0], expected);
    }

    [Theory]
    [InlineData("--memory", "sise=1G", "Did you mean size?")]
    [InlineData("--memory", "size", "size=value")]
    [InlineData("--memory", "size=", "size")]
    [InlineData("--memory", "", "empty")]
    [InlineData("--memory", ",", "comma")]
    [InlineData("--memory", "size=1G,", "comma")]
    [InlineData("--memory", "size=[1G]", "list")]
    [InlineData("--memory", "size=\"1G", "closing quote")]
    [InlineData("--memory", "shared=maybe", "neither on nor off")]
    [InlineData("--serial", "tyt", "Did you mean tty?")]
    [InlineData("--serial", "tty=1", "no value")]
    [InlineData("--serial", "file", "file")]
    [InlineData("--serial", "file=", "file")]
    [InlineData("--serial", "tty,null", "one of")]
    [InlineData("--boot", "protocol=phv", "Did you mean pvh?")]
    [InlineData("--acpi", "of", "neither on nor off")]
    [InlineData("--on-reboot", "restrt", "Did you mean restart?")]
    [InlineData("--log-level", "", "--log-level")]
    [InlineData("--log-format", "xml", "text, json")]
    [InlineData("--kernel", "", "empty path")]
    [InlineData("--initramfs", "", "empty path")]
    [InlineData("--memory", "size=\u001b2J", "not a size")]
    public void The_command_line(string option, string value, string expected)
    {
        Outcome outcome = _vmm.Run("config", option, value).IsOneLine(ExitCodes.BadArguments, option, expected);
        Assert.DoesNotContain('\u001b', outcome.Error);
    }

    [Fact]
    public void Arguments_that_are_not_text()
    {
        _vmm.Redirections = "--kernel $'\\xff\\xfe' --memroy </dev/null";
        _vmm.Run("config").IsOneLine(ExitCodes.BadArguments, "--memory");
    }

    private Outcome File_(byte[] content) => _vmm.Run("config", "--config", _vmm.Make("vm.json", content));
}
