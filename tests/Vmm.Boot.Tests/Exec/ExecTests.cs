using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Vmm.Boot.Tests.VhostUser;
using Vmm.Boot.Tests.Virtio;
using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.Exec;

/// <summary><c>vmm exec</c> with real kernels, a real virtiofsd and real trees: streams, exit codes, what is changed and what is not.</summary>
/// <remarks>A boot in the sandbox is dear, so each looks at several things.</remarks>
[Collection(BackEndCollection.Name)]
public sealed class ExecTests(VirtioHost host, ITestOutputHelper log) : IAsyncLifetime
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(10);
    private static readonly Dictionary<string, string> s_trees = [];

    [SkippableTheory]
    [InlineData("debian-12-disk")]
    [InlineData("debian-13-disk")]
    public async Task A_command_runs_on_the_hosts_own_tree_and_changes_nothing_of_it(string image)
    {
        string tree = await Prepare(image);
        string script = Convert.ToBase64String(await File.ReadAllBytesAsync(Path.Combine(SandboxImage.RepositoryDirectory, "tests/Vmm.Boot.Tests/Exec/guest.sh")));
        string[] arguments = ["with space", "", "qu'o\"te", "new\nline", "üñï", "$HOME;*"];
        string work = $"{host.Scratch}/exec-{image}";
        await Must($"mkdir -p '{work}/a b' && echo {script} | base64 -d > {work}/guest.sh && head -c 300000 /dev/urandom > {work}/input && echo host > /etc/vmm-exec-mark && echo name > /etc/hostname");
        string before = await Must($"ls -laR /etc /bin/ | sha256sum; cat /etc/vmm-exec-mark; ls -d /vmm-new 2>/dev/null || echo none");
        string sent = (await Must($"sha256sum < {work}/input"))[..64];

        CommandResult result = await Run(
            $"cd '{work}/a b' && {Exec(image, "--modules", tree, "--env", "TEST_VARIABLE=a value=with equals")} -- sh {work}/guest.sh {string.Join(' ', arguments.Select(Sandbox.Sandbox.Quote))} < {work}/input");

        Assert.Equal(7, result.ExitCode);
        Assert.Equal("error one\nerror two\n", result.Error);
        string[] lines = result.Output.TrimEnd('\n').Split('\n');
        Assert.StartsWith(image == "debian-12-disk" ? "release 6.1." : "release 6.12.", lines[0], StringComparison.Ordinal);
        Assert.Equal($"directory {work}/a b", lines[1]);
        string[] expected =
        [
            .. arguments.Select(argument => $"argument <{Convert.ToBase64String(Encoding.UTF8.GetBytes(argument))}>"),
            "variable <a value=with equals>", "home </root>", $"input {sent}", "output by name",
            "mounted proc", "mounted sys", "mounted dev", "mounted dev/pts", "mounted dev/shm", "mounted run", "mounted tmp",
            "devices", "loopback", "changes made", "changes seen",
        ];
        Assert.Equal(expected, lines[2..]);
        Assert.Equal(before, await Must($"ls -laR /etc /bin/ | sha256sum; cat /etc/vmm-exec-mark; ls -d /vmm-new 2>/dev/null || echo none"));
        await NothingIsLeft();
    }

    [SkippableFact]
    public async Task Writes_go_through_where_that_is_asked_for_and_ten_megabytes_come_whole()
    {
        const int size = 10 << 20;
        string tree = await Prepare("debian-12-disk");
        // At once and from two programs: the command ends with the last byte, and by a signal.
        CommandResult result = await Run(
            $"{Exec("debian-12-disk", "--rootfs", tree, "--rw")} -- sh -c 'echo from the guest > /written; seq 100000000 | head -c {size} & seq 100000000 | head -c 1000000 >&2; wait; kill -9 $$'");

        Assert.Equal(137, result.ExitCode);
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(Numbers(size))), Convert.ToHexStringLower(SHA256.HashData(result.OutputBytes)));
        Assert.Equal(Numbers(1_000_000), result.ErrorBytes);
        Assert.Equal("from the guest\n", await Must($"cat {tree}/written"));
        await NothingIsLeft();
    }

    [SkippableTheory]
    [InlineData("no-such-command", 127, "There is no command 'no-such-command' in the guest's tree")]
    [InlineData("/etc/passwd", 126, "The guest cannot execute '/etc/passwd': Permission denied")]
    public async Task What_cannot_be_run_has_the_codes_of_a_shell(string command, int code, string says)
    {
        string tree = await Prepare("debian-13-disk");
        CommandResult result = await Run($"{Exec("debian-13-disk", "--rootfs", tree)} -- {command} < /dev/null");
        Assert.Equal(code, result.ExitCode);
        Assert.Contains(says, result.Error, StringComparison.Ordinal);
        Assert.Equal("", result.Output);
    }

    [SkippableFact]
    public async Task A_reader_who_leaves_ends_an_endless_command()
    {
        string tree = await Prepare("debian-13-disk");
        CommandResult result = await host.Shell(
            $"bash -c {Sandbox.Sandbox.Quote($"{Exec("debian-13-disk", "--rootfs", tree)} -- yes | head -1; echo code=${{PIPESTATUS[0]}}")} < /dev/null", s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Equal("y\ncode=141\n", result.Output);
        await NothingIsLeft();
    }

    [SkippableFact]
    public async Task A_panic_is_told_with_the_consoles_last_lines()
    {
        string tree = await Prepare("debian-12-disk");
        CommandResult result = await Run($"{Exec("debian-12-disk", "--rootfs", tree, "--cmdline", "rdinit=/not-there")} -- true < /dev/null");
        Assert.Equal(125, result.ExitCode);
        Assert.StartsWith("vmm: The guest's kernel panicked before the command ended", result.Error, StringComparison.Ordinal);
        Assert.Contains("Kernel panic - not syncing", result.Error, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task Modules_of_another_kernel_are_named()
    {
        string tree = await Prepare("debian-12-disk");
        string other = await Prepare("debian-13-disk");
        CommandResult result = await Run($"{Exec("debian-12-disk", "--rootfs", tree, "--modules")} $(dirname {other}/usr/lib/modules/*/modules.dep) -- true < /dev/null");
        Assert.Equal(125, result.ExitCode);
        Assert.StartsWith("vmm: The guest's kernel does not take its module ", result.Error, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task What_is_wrong_before_the_start_is_said_at_once()
    {
        string tree = await Prepare("debian-12-disk");
        foreach ((string line, string says) in new[]
        {
            ($"{host.Binary} exec --kernel {tree}/etc/passwd --rootfs {tree} -- true", "passwd"),
            ($"{host.Binary} exec --kernel /not-there -- true", "/not-there"),
            (Exec("debian-12-disk", "--rootfs", "/not-there") + " -- true", "--rootfs: there is no directory '/not-there'"),
            (Exec("debian-12-disk", "--virtiofsd", "/not-there") + " -- true", "--virtiofsd: there is no /not-there"),
            (Exec("debian-12-disk", "--rootfs", tree, "--virtiofsd", "/bin/false") + " -- true", "virtiofsd, which serves the guest's root, ended"),
            (Exec("debian-12-disk", "--rootfs", tree), "there is no command"),
        })
        {
            CommandResult result = await Run(line + " < /dev/null");
            Assert.Equal(125, result.ExitCode);
            Assert.Contains(says, result.Error, StringComparison.Ordinal);
            Assert.Single(result.Error.TrimEnd('\n').Split('\n'));
        }
        await NothingIsLeft();
    }

    [SkippableTheory]
    [InlineData("KILL", 137)]
    [InlineData("TERM", 143)]
    public async Task Nothing_is_left_of_one_that_is_ended(string signal, int code)
    {
        string tree = await Prepare("debian-13-disk");
        string output = $"{host.Scratch}/exec-{signal}";
        // Its output comes while it runs, so that it is known to have started.
        CommandResult result = await Run(
            $"{Exec("debian-13-disk", "--rootfs", tree)} -- sh -c 'echo started; sleep 1000' < /dev/null > {output} & pid=$!; "
            + $"until grep -q started {output} || ! kill -0 $pid; do sleep 0.2; done; kill -{signal} $pid; wait $pid; echo code=$?");
        Assert.Contains(string.Create(CultureInfo.InvariantCulture, $"code={code}"), result.Output, StringComparison.Ordinal);
        await NothingIsLeft();
    }

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        // In the sandbox they go with it.
        if (host.InSandbox)
            return;
        foreach (string tree in s_trees.Values)
            await Must($"umount {tree}");
        s_trees.Clear();
    }

    private string Exec(string image, params string[] options) =>
        string.Join(' ', new[] { host.Binary, "exec", "--kernel", host.Kernel(image), "--memory", "size=512M" }.Concat(options).Select(Sandbox.Sandbox.Quote));

    /// <summary>A tree of that Debian, with its kernel's modules, mounted where the guests run; once a run.</summary>
    private async Task<string> Prepare(string image)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "these are options of vmm");
        await host.RequireProgram("virtiofsd");
        if (!s_trees.TryGetValue(image, out string? tree))
        {
            tree = $"{host.Scratch}/tree-{image}";
            string root = await host.FreshRoot(image);
            await Must($"mkdir -p {tree} && mount -t ext4 {(host.InSandbox ? "" : "-o loop ")}{root} {tree}");
            s_trees[image] = tree;
        }
        return tree;
    }

    private async Task<CommandResult> Run(string line)
    {
        CommandResult result = await host.Shell(line, s_limit);
        log.WriteLine($"{line}: code {result.ExitCode}, {result.OutputBytes.Length} bytes\n{(result.OutputBytes.Length < 10_000 ? result.Output : "")}{(result.ErrorBytes.Length < 20_000 ? result.Error : "")}");
        Assert.False(result.TimedOut, "the command did not end");
        return result;
    }

    /// <summary>Neither a virtiofsd nor a file: soon, since who was killed cannot wait for it.</summary>
    private async Task NothingIsLeft()
    {
        CommandResult result = await host.Shell(
            "for i in $(seq 50); do ls -d /tmp/vmm-exec-* 2>/dev/null || pgrep -f '[s]hared-dir.*--sandbox' || exit 0; sleep 0.2; done; ps axww | grep virtiofsd; ls -d /tmp/vmm-exec-*; exit 1");
        Assert.True(result.ExitCode == 0, result.Output + result.Error);
    }

    private async Task<string> Must(string line)
    {
        CommandResult result = await host.Shell(line, TimeSpan.FromMinutes(2));
        Assert.True(result.ExitCode == 0, $"{line}: {result.Output}{result.Error}");
        return result.Output;
    }

    /// <summary>What seq(1) prints, so many bytes of it.</summary>
    private static byte[] Numbers(int length)
    {
        var text = new StringBuilder(length + 10);
        for (int i = 1; text.Length < length; i++)
            text.Append(i).Append('\n');
        return Encoding.ASCII.GetBytes(text.ToString(0, length));
    }
}
