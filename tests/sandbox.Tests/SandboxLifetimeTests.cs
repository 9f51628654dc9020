using System.Diagnostics;

namespace Vmm.Sandbox.Tests;

public sealed class SandboxLifetimeTests
{
    [Fact]
    public async Task A_command_whose_sandbox_ends_fails_and_later_ones_too()
    {
        await using var sandbox = await Sandbox.StartAsync(new SandboxOptions { MemoryMiB = 512, CountInstructions = true });
        Assert.Equal("1\n", (await sandbox.RunAsync("nproc")).Output);
        await Assert.ThrowsAsync<SandboxException>(() => sandbox.RunAsync("poweroff -f; sleep 100"));
        await sandbox.Ended.WaitAsync(TimeSpan.FromSeconds(30));
        await Assert.ThrowsAsync<SandboxException>(() => sandbox.RunAsync("true"));
    }

    [Fact]
    public async Task A_sandbox_that_does_not_start_says_why_with_its_console()
    {
        var empty = Directory.CreateTempSubdirectory("vmm-sandbox-test-").FullName;
        try
        {
            var e = await Assert.ThrowsAsync<SandboxException>(() => Sandbox.StartAsync(new SandboxOptions { MemoryMiB = 512, ImageDirectory = empty }));
            Assert.Contains("vmlinux", e.Message, StringComparison.Ordinal);
        }
        finally
        {
            Directory.Delete(empty);
        }
    }

    [Fact]
    public async Task A_file_is_a_disk_that_may_be_written_to_and_stays_as_it_is()
    {
        var file = Path.GetTempFileName();
        try
        {
            await File.WriteAllBytesAsync(file, new byte[1 << 20]);
            await using var sandbox = await Sandbox.StartAsync(new SandboxOptions
            {
                MemoryMiB = 512,
                Cpus = 1,
                Drives = [new SandboxDrive(file, "one"), new SandboxDrive(file, "two")],
            });
            var result = await sandbox.RunAsync("printf changed | dd of=/dev/drive/one conv=notrunc,fsync 2>/dev/null; head -c 7 /dev/drive/one; head -c 7 /dev/drive/two | tr '\\0' 0; blockdev --getsize64 /dev/drive/one");
            Assert.Equal("changed00000001048576\n", result.EnsureSuccess().Output);
            Assert.All(await File.ReadAllBytesAsync(file), b => Assert.Equal(0, b));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Theory]
    [InlineData("/etc/hostname", "vmm-root")]
    [InlineData("/etc/hostname", "a,b")]
    [InlineData("/etc/hostname", "123456789012345678901")]
    [InlineData("/no/such/file", "disk")]
    public async Task A_disk_that_cannot_be_is_refused_by_name(string file, string name)
    {
        var e = await Assert.ThrowsAsync<SandboxException>(() => Sandbox.StartAsync(new SandboxOptions { Drives = [new SandboxDrive(file, name)] }));
        Assert.Contains(name == "disk" ? file : name, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Killing_its_user_leaves_no_process_and_no_file()
    {
        var program = Path.Combine(AppContext.BaseDirectory, "Vmm.Sandbox");
        using var user = Process.Start(new ProcessStartInfo(program, ["run", "--memory", "512", "echo up; sleep 1000"]) { RedirectStandardOutput = true })!;
        Assert.Equal("up", await user.StandardOutput.ReadLineAsync().WaitAsync(TimeSpan.FromMinutes(3)));
        var emulator = Assert.Single(Directory.GetDirectories("/proc"), d => ParentOf(d) == user.Id && CommandOf(d).Contains("qemu-system", StringComparison.Ordinal));
        Assert.Empty(Directory.GetFiles(Path.GetTempPath(), $"vmm-sandbox-{user.Id}-*"));
        user.Kill(); // SIGKILL
        await user.WaitForExitAsync();
        for (var i = 0; i < 100 && CommandOf(emulator).Contains("qemu-system", StringComparison.Ordinal); i++)
            await Task.Delay(100);
        Assert.DoesNotContain("qemu-system", CommandOf(emulator), StringComparison.Ordinal);
    }

    private static int ParentOf(string process)
    {
        try
        {
            var status = File.ReadLines(Path.Combine(process, "status")).FirstOrDefault(l => l.StartsWith("PPid:", StringComparison.Ordinal));
            return status is null ? 0 : int.Parse(status.AsSpan(5));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return 0;
        }
    }

    private static string CommandOf(string process)
    {
        try
        {
            return File.ReadAllText(Path.Combine(process, "cmdline"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
