using System.Text;
using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Tests.Configuration;

public sealed class ConfigurationSourcesTests
{
    internal static VmConfig Json(string json)
    {
        var builder = new VmConfigBuilder();
        ConfigurationSources.AddJson(builder, "vm.json", Encoding.UTF8.GetBytes(json));
        return builder.Build();
    }

    [Fact]
    public void Objects_and_texts_say_the_same()
    {
        VmConfig objects = Json("""{"cpus":{"boot":2},"memory":{"size":"1G","shared":true},"serial":{"file":"a,b"},"acpi":false,"on-reboot":"restart"}""");
        VmConfig texts = Json("""{"cpus":"boot=2","memory":"size=1G,shared=on","serial":"file=\"a,b\"","acpi":"off","on_reboot":"restart"}""");
        Assert.Equal(objects, texts);
        Assert.Equal(2, objects.Cpus.Boot);
        Assert.Equal(RebootAction.Restart, objects.OnReboot.Action);
    }

    [Theory]
    [InlineData("""{"memroy":{"size":"1G"}}""", "Did you mean memory?")]
    [InlineData("""{"memory":{"sise":"1G"}}""", "Did you mean size?")]
    [InlineData("""{"kernel":"x"}""", "kernel is a key of payload")]
    [InlineData("""{"memory":{"size":null}}""", "has no value")]
    [InlineData("""{"memory":{"size":{"x":1}}}""", "not an object")]
    [InlineData("""{"memory":{"size":["1G"]}}""", "not a list")]
    [InlineData("""{"memory":""}""", "has no value")]
    [InlineData("""{"acpi":{"on":true}}""", "takes one value")]
    [InlineData("""{"serial":{"pty":false}}""", "write true")]
    [InlineData("""{"memory":{"size":"1G"}""", "no configuration in JSON")]
    [InlineData("""{"cpus":{"boot":1},"cpus":{"boot":2}}""", "JSON")]
    [InlineData("[]", "JSON")]
    [InlineData("", "JSON")]
    public void Each_mistake_names_the_file(string json, string expected)
    {
        var error = Assert.Throws<VmmException>(() => Json(json));
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        Assert.StartsWith("vm.json", error.Message, StringComparison.Ordinal);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_command_line_goes_before_the_environment_and_that_before_the_file()
    {
        string file = Path.GetTempFileName();
        try
        {
            File.WriteAllText(file, """{"memory":{"size":"1G","prefault":true},"cpus":{"boot":2,"max":8},"serial":{"file":"x"}}""");
            Environment.SetEnvironmentVariable("VMM_MEMORY__SIZE", "2G");
            Environment.SetEnvironmentVariable("VMM_CPUS", "boot=3");
            Environment.SetEnvironmentVariable("VMM_SERIAL", "null");
            Environment.SetEnvironmentVariable("VMM_TEST_NOT_OURS", "1");
            VmConfig config = new VmConfigBuilder().AddFile(file).AddEnvironment().AddOption(CpusConfig.Option, "boot=4").Build();
            Assert.Equal(new MemoryConfig(2 * ByteSize.GiB, Prefault: true), config.Memory);
            Assert.Equal(new CpusConfig(4, 8), config.Cpus);
            Assert.Equal(new ConsoleConfig(ConsoleBackend.Null), config.Serial);

            Environment.SetEnvironmentVariable("VMM_MEMORY__SIZE", "2X");
            var error = Assert.Throws<VmmException>(() => new VmConfigBuilder().AddEnvironment().Build());
            Assert.StartsWith("VMM_MEMORY__SIZE: 'size=2X'", error.Message, StringComparison.Ordinal);
            Environment.SetEnvironmentVariable("VMM_MEMORY__SIZE", null);
            Environment.SetEnvironmentVariable("VMM_MEMRY", "size=1G");
            error = Assert.Throws<VmmException>(() => new VmConfigBuilder().AddEnvironment());
            Assert.StartsWith("VMM_MEMRY: ", error.Message, StringComparison.Ordinal);
            Assert.Contains("memory", error.Message, StringComparison.Ordinal);
        }
        finally
        {
            foreach (string name in (string[])["VMM_MEMORY__SIZE", "VMM_CPUS", "VMM_SERIAL", "VMM_TEST_NOT_OURS", "VMM_MEMRY"])
                Environment.SetEnvironmentVariable(name, null);
            File.Delete(file);
        }
    }

    [Fact]
    public void A_file_that_is_missing_or_far_too_large_is_an_error()
    {
        Assert.Contains("cannot read", Assert.Throws<VmmException>(() => new VmConfigBuilder().AddFile("/nowhere/vm.json")).Message, StringComparison.Ordinal);
        Assert.Contains("cannot read", Assert.Throws<VmmException>(() => new VmConfigBuilder().AddFile("/tmp")).Message, StringComparison.Ordinal);
        Assert.Contains("larger than 1 MiB", Assert.Throws<VmmException>(() => new VmConfigBuilder().AddFile("/dev/zero")).Message, StringComparison.Ordinal);
    }
}
