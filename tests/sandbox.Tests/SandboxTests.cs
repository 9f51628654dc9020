using System.Security.Cryptography;
using System.Text;

namespace Vmm.Sandbox.Tests;

public sealed class SandboxTests(SandboxFixture fixture) : IClassFixture<SandboxFixture>, IDisposable
{
    private readonly Sandbox sandbox = fixture.Sandbox;
    private readonly string directory = Directory.CreateTempSubdirectory("vmm-sandbox-test-").FullName;

    public void Dispose() => Directory.Delete(directory, recursive: true);

    [Fact]
    public async Task Has_a_kvm_and_two_processors()
    {
        var result = await sandbox.RunAsync("test -c /dev/kvm && test -d /sys/module/kvm_amd && nproc");
        Assert.Equal("2\n", result.EnsureSuccess().Output);
    }

    [Theory]
    [InlineData("exit 0", 0, 0)]
    [InlineData("exit 7", 7, 0)]
    [InlineData("exit 255", 255, 0)]
    [InlineData("kill -TERM $$", 143, 15)]
    [InlineData("/no/such/program", 127, 0)]
    public async Task Tells_how_a_command_ended(string command, int code, int signal)
    {
        var result = await sandbox.RunAsync(command);
        Assert.Equal((code, signal, false), (result.ExitCode, result.Signal, result.TimedOut));
    }

    [Fact]
    public async Task Keeps_output_and_errors_apart_and_streams_them()
    {
        var streamed = new StringBuilder();
        var first = new TaskCompletionSource();
        var command = await sandbox.StartCommandAsync("echo out; echo err >&2; read line; echo got $line", new CommandOptions
        {
            InputLater = true,
            OnOutput = (_, data) =>
            {
                streamed.Append(Encoding.UTF8.GetString(data));
                first.TrySetResult();
            },
        });
        await first.Task.WaitAsync(TimeSpan.FromSeconds(30));
        Assert.False(command.HasEnded);
        await command.WriteInputAsync("hello\n"u8.ToArray());
        var result = await command.WaitAsync();
        Assert.Equal("out\ngot hello\n", result.Output);
        Assert.Equal("err\n", result.Error);
        Assert.Contains("got hello", streamed.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Passes_every_byte_both_ways()
    {
        var bytes = new byte[3_000_001];
        new Random(1).NextBytes(bytes);
        var result = await sandbox.RunAsync("cat", new CommandOptions { Input = new MemoryStream(bytes) });
        Assert.Equal(SHA256.HashData(bytes), SHA256.HashData(result.OutputBytes));
    }

    [Fact]
    public async Task A_command_that_reads_nothing_does_not_stop_its_input()
    {
        var result = await sandbox.RunAsync("exec 0</dev/null; sleep 1; echo done", new CommandOptions { Input = new MemoryStream(new byte[1 << 20]) });
        Assert.Equal("done\n", result.Output);
    }

    [Fact]
    public async Task The_time_limit_kills_all_descendants()
    {
        var result = await sandbox.RunAsync("trap '' TERM INT HUP; (setsid sleep 1234 &) ; echo started; sleep 1234", TimeSpan.FromSeconds(2));
        Assert.True(result.TimedOut);
        Assert.Equal("started\n", result.Output);
        var left = await sandbox.RunAsync("pidof sleep");
        Assert.Equal((1, ""), (left.ExitCode, left.Output));
    }

    [Fact]
    public async Task Background_children_outlive_their_command()
    {
        var result = await sandbox.RunAsync("setsid sleep 4321 & echo $!", TimeSpan.FromSeconds(20));
        Assert.False(result.TimedOut);
        var child = await sandbox.RunAsync($"kill -9 {result.Output.Trim()}");
        Assert.Equal(0, child.ExitCode);
    }

    [Fact]
    public async Task Sets_environment_and_directory()
    {
        var result = await sandbox.RunAsync("pwd; echo \"$NAME\"", new CommandOptions
        {
            Directory = "/proc",
            Environment = new Dictionary<string, string> { ["NAME"] = "a 'b' \"c\" $d" },
        });
        Assert.Equal("/proc\na 'b' \"c\" $d\n", result.Output);
    }

    [Fact]
    public async Task Signals_reach_a_running_command()
    {
        var started = new TaskCompletionSource();
        var command = await sandbox.StartCommandAsync("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
            new CommandOptions { OnOutput = (_, _) => started.TrySetResult() });
        await started.Task.WaitAsync(TimeSpan.FromSeconds(30));
        await command.SignalAsync(15);
        var result = await command.WaitAsync();
        Assert.Equal((3, "ready\ncaught\n"), (result.ExitCode, result.Output));
    }

    [Fact]
    public async Task Gives_a_terminal()
    {
        var command = await sandbox.StartCommandAsync("tty >/dev/null && stty size; read line; echo got $line",
            new CommandOptions { Terminal = new TerminalSize(33, 111) });
        await command.WriteInputAsync("x\n"u8.ToArray());
        var result = await command.WaitAsync();
        Assert.Contains("33 111\r\n", result.Output, StringComparison.Ordinal);
        Assert.Contains("got x\r\n", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Copies_64_MiB_in_and_out()
    {
        var source = Path.Combine(directory, "big file");
        var bytes = new byte[(64 << 20) + 3];
        new Random(2).NextBytes(bytes);
        await File.WriteAllBytesAsync(source, bytes);
        File.SetUnixFileMode(source, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        await sandbox.CopyInAsync(source, "/tmp/a/b'c/big");
        var result = await sandbox.RunAsync("cd /tmp/a; sha256sum <\"b'c/big\"; stat -c %a \"b'c/big\"; wc -c <\"b'c/big\"");
        Assert.Equal($"{Convert.ToHexStringLower(SHA256.HashData(bytes))}  -\n500\n{bytes.Length}\n", result.EnsureSuccess().Output);

        // Another copy in between, so that the way back cannot be the old bytes of the disk.
        await File.WriteAllTextAsync(Path.Combine(directory, "small"), "small");
        await sandbox.CopyInAsync(Path.Combine(directory, "small"), "/tmp/small");
        await sandbox.CopyOutAsync("/tmp/a/b'c/big", Path.Combine(directory, "out", "back"));
        Assert.Equal(SHA256.HashData(bytes), SHA256.HashData(await File.ReadAllBytesAsync(Path.Combine(directory, "out", "back"))));
        Assert.Equal("small", (await sandbox.RunAsync("cat /tmp/small; rm -r /tmp/a")).Output);
    }

    [Fact]
    public async Task Copies_directories_with_links_modes_and_long_names()
    {
        var source = Directory.CreateDirectory(Path.Combine(directory, "tree")).FullName;
        var name = new string('n', 150);
        Directory.CreateDirectory(Path.Combine(source, "empty"));
        await File.WriteAllTextAsync(Path.Combine(source, name), "long");
        File.CreateSymbolicLink(Path.Combine(source, "link"), name);
        await sandbox.CopyInAsync(source, "/tmp/tree");
        Assert.Equal("long", (await sandbox.RunAsync("cd /tmp/tree && test -d empty && test -L link && cat link")).EnsureSuccess().Output);
        await sandbox.RunAsync("echo more > /tmp/tree/empty/file; chmod 700 /tmp/tree/empty/file");
        await sandbox.CopyOutAsync("/tmp/tree", Path.Combine(directory, "back"));
        Assert.Equal("long", await File.ReadAllTextAsync(Path.Combine(directory, "back", "link")));
        Assert.Equal("more\n", await File.ReadAllTextAsync(Path.Combine(directory, "back", "empty", "file")));
        Assert.True(File.GetUnixFileMode(Path.Combine(directory, "back", "empty", "file")).HasFlag(UnixFileMode.UserExecute));
    }

    [Fact]
    public async Task Copying_what_is_not_there_is_an_error_that_names_it()
    {
        var inward = await Assert.ThrowsAsync<SandboxException>(() => sandbox.CopyInAsync("/no/such", "/tmp/x"));
        Assert.Contains("/no/such", inward.Message, StringComparison.Ordinal);
        var outward = await Assert.ThrowsAsync<SandboxException>(() => sandbox.CopyOutAsync("/no/such", Path.Combine(directory, "x")));
        Assert.Contains("/no/such", outward.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Path.Combine(directory, "x")));
    }

    [Fact]
    public async Task Commands_run_beside_each_other()
    {
        var commands = Enumerable.Range(1, 5).Select(i => sandbox.RunAsync($"sleep 1; echo {i}")).ToArray();
        var results = await Task.WhenAll(commands);
        Assert.Equal(["1\n", "2\n", "3\n", "4\n", "5\n"], results.Select(r => r.Output));
    }
}
