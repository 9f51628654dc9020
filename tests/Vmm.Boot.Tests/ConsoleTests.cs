using System.Text;
using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests;

/// <summary>The serial console with a real driver at the guest's end.</summary>
[Collection(BootCollection.Name)]
public sealed class ConsoleTests(BootHost host, ITestOutputHelper log)
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(4);

    [SkippableFact]
    public async Task A_shell_answers_what_is_typed()
    {
        host.Require();
        CommandResult result = await Typed("console=ttyS0 quiet", prompt: "# ", "printf 'echo sum=$((6*7)); nproc\\nexit\\n' >&3");
        log.WriteLine(result.Output + result.Error);
        Assert.Contains("sum=42", result.Output, StringComparison.Ordinal);
        Assert.Contains("code=0", result.Output, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_paste_arrives_byte_for_byte()
    {
        host.Require();
        // 32 KiB through the real 8250 driver, raw and unechoed; the port's own tests paste 10 MB.
        byte[] paste = Encoding.ASCII.GetBytes(string.Concat(Enumerable.Range(0, 2048).Select(i => $"line {i:D9}\n")));
        string script = $"stty raw -echo < /dev/ttyS0; echo ready; head -c {paste.Length} < /dev/ttyS0 | sha256sum";
        string expected = Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(paste));
        CommandResult result = await Typed(
            "console=ttyS0 quiet vmm.run64=" + Convert.ToBase64String(Encoding.ASCII.GetBytes(script)) + " vmm.end=poweroff",
            prompt: "ready",
            "i=0; while [ $i -lt 2048 ]; do printf 'line %09d\\n' $i; i=$((i+1)); done >&3");
        log.WriteLine(result.Output + result.Error);
        Assert.Contains("code=0", result.Output, StringComparison.Ordinal);
        Assert.Contains(expected, result.Output, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_long_log_leaves_byte_for_byte()
    {
        host.Require();
        const string Script = "stty -opost < /dev/ttyS0; echo BEGIN; seq 1 3000; echo END";
        CommandResult result = await host.Shell(
            Vmm("console=ttyS0 quiet vmm.run64=" + Convert.ToBase64String(Encoding.ASCII.GetBytes(Script)) + " vmm.end=poweroff") + " </dev/null", s_limit);
        Assert.Equal(0, result.ExitCode);
        string output = result.Output.ReplaceLineEndings("\n");
        int begin = output.IndexOf("BEGIN\n", StringComparison.Ordinal) + 6;
        int end = output.IndexOf("END\n", begin, StringComparison.Ordinal);
        Assert.Equal(string.Concat(Enumerable.Range(1, 3000).Select(i => $"{i}\n")), output[begin..end]);
    }

    /// <summary>Starts a guest, waits for a text on its console, then runs shell commands whose descriptor 3 is the keyboard.</summary>
    private Task<CommandResult> Typed(string commandLine, string prompt, string type) => host.Shell(
        $"cd {host.Scratch}; rm -f in out; mkfifo in; {Vmm(commandLine)} <in >out & pid=$!; exec 3>in; "
        + $"until grep -q '{prompt}' out; do kill -0 $pid || break; sleep 0.2; done; {type}; wait $pid; echo code=$?; cat out",
        s_limit);

    private string Vmm(string commandLine) => host.Command(
    [
        "run", "--kernel", host.Image("debian-12", "vmlinuz"), "--initramfs", host.Image("debian-12", "initramfs.cpio.gz"),
        "--cmdline", commandLine, "--memory", "size=256M",
    ]);
}
