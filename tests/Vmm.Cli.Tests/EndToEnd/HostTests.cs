using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Vmm.Tests.Payloads;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>Hosts that lack something, and machines that ask for more than there is.</summary>
public sealed class HostTests : IDisposable
{
    private readonly VmmProgram _vmm = new();
    private readonly string _kernel;

    public HostTests() => _kernel = _vmm.Make("kernel", GuestProgram.Elf(a => a.PowerOff()));

    public void Dispose() => _vmm.Dispose();

    [Theory]
    [InlineData("boot=0", "boot=0", "1 to 1024")]
    [InlineData("boot=-1", "boot=-1", "1 to 1024")]
    [InlineData("boot=1025", "boot=1025", "1 to 1024")]
    [InlineData("boot=99999999999999999999", "out of range", "1 to 1024")]
    [InlineData("boot=two", "boot=two", "1 to 1024")]
    [InlineData("boot=4,max=2", "max=2 is below boot=4", "raise max")]
    public void Wrong_numbers_of_processors(string cpus, params string[] parts) => Run("--cpus", cpus).IsOneLine(ExitCodes.BadArguments, ["--cpus", .. parts]);

    [Theory]
    [InlineData("size=1M", "size=1M", "64M")]
    [InlineData("size=0", "size=0", "64M")]
    [InlineData("size=67108865", "not a multiple of 4K")]
    [InlineData("size=100M,hugepages=on,hugepage_size=1G", "not a multiple of 1G")]
    [InlineData("size=128M,hugepages=on,hugepage_size=4M", "2M and 1G")]
    [InlineData("size=128M,hugepage_size=2M", "hugepages=on")]
    [InlineData("size=65T", "64T")]
    [InlineData("size=99999999999T", "64T")]
    [InlineData("size=lots", "not a size")]
    [InlineData("size=-1M", "not a size")]
    public void Wrong_amounts_of_memory(string memory, params string[] parts) => Run("--memory", memory).IsOneLine(ExitCodes.BadArguments, ["--memory", .. parts]);

    [SkippableTheory]
    [InlineData("size=16T")]
    [InlineData("size=64T,shared=on")]
    [InlineData("size=32T,prefault=on")]
    public void More_memory_than_the_host_has(string memory)
    {
        NeedsKvm.Check();
        Run("--memory", memory).IsOneLine(ExitCodes.BadArguments, "--memory", "more than this host's memory", "ask for less");
    }

    [SkippableTheory]
    [InlineData("size=2G,hugepages=on,hugepage_size=1G")]
    [InlineData("size=2G,hugepages=on,hugepage_size=1G,shared=on")]
    public void Huge_pages_that_are_not_there(string memory)
    {
        NeedsKvm.Check();
        string free = "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages";
        Skip.If(File.Exists(free) && File.ReadAllText(free).Trim() != "0", "This host has huge pages of 1 GiB.");
        Run("--memory", memory).IsOneLine(ExitCodes.HostError, "huge pages", "hugepages=off");
    }

    [SkippableFact]
    public void A_console_whose_client_finds_no_descriptor_waits_without_spinning()
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("prints", GuestProgram.Elf(a => { a.Print("hello\r\n"); a.Out(0xE9, (byte)'x'); a.Hang(); }));
        _vmm.MayRemain.Add("debug");
        using RunningVmm running = _vmm.Start("run", "--kernel", kernel, "--serial", "socket=console", "--debug-console", "file=debug");
        string debug = Path.Combine(_vmm.RunFolder, "debug");
        Assert.True(SpinWait.SpinUntil(() => File.Exists(debug) && new FileInfo(debug).Length > 0, VmmProgram.Patience));
        SetMostFiles(running, "3");
        using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = VmmProgram.Patience };
        client.Connect(new UnixDomainSocketEndPoint(Path.Combine(_vmm.RunFolder, "console")));
        Thread.Sleep(500);
        long before = Ticks(running);
        Thread.Sleep(1000);
        // Of 100 a second.
        Assert.InRange(Ticks(running) - before, 0, 10);
        SetMostFiles(running, "1024");
        Assert.Equal("hello\r\n", Receive(client));
        running.Kill(15);
        Assert.Equal(143, running.WaitForEnd().Code);
    }

    [SkippableFact]
    public void Address_space_that_runs_out()
    {
        NeedsKvm.Check();
        Skip.If(Environment.GetEnvironmentVariable("VMM_BINARY") is null or "", "The runtime needs more address space than this; set VMM_BINARY to test a NativeAOT binary.");
        _vmm.Prefix = "ulimit -v 600000; DOTNET_GCHeapHardLimit=4000000 exec";
        Run("--memory", "size=512M").IsOneLine(ExitCodes.HostError, "512 MiB", "--memory");
    }

    [SkippableFact]
    public void Descriptors_that_run_out()
    {
        NeedsKvm.Check();
        _vmm.Prefix = "ulimit -n 150; exec";
        Run("--cpus", "boot=200").IsOneLine(ExitCodes.HostError, "vCPU", "ulimit -n");
    }

    [SkippableFact]
    public void No_kvm()
    {
        NeedsRoot();
        _vmm.Prefix = "exec unshare -m /bin/bash -c 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec \"$@\"' -- ";
        Run().IsOneLine(ExitCodes.HostError, "/dev/kvm", "does not exist", "kvm_amd");
    }

    [SkippableFact]
    public void A_device_that_is_not_kvm()
    {
        NeedsRoot();
        _vmm.Prefix = "exec unshare -m /bin/bash -c 'mount --bind /dev/null /dev/kvm && exec \"$@\"' -- ";
        Run().IsOneLine(ExitCodes.HostError, "/dev/kvm", "does not answer as KVM does");
    }

    [SkippableFact]
    public void A_kvm_without_permission()
    {
        NeedsRoot();
        NeedsKvm.Check();
        _vmm.LetOthersRunIt();
        File.SetUnixFileMode(_kernel, (UnixFileMode)0x1A4);
        _vmm.Prefix = "exec unshare -m /bin/bash -c 'mknod -m 600 kvm c 10 232 && mount --bind kvm /dev/kvm && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"' -- ";
        _vmm.MayRemain.Add("kvm");
        Run().IsOneLine(ExitCodes.HostError, "/dev/kvm", "permission denied", "group");
    }

    [SkippableTheory]
    [InlineData("KVM_CAP_IRQCHIP")]
    [InlineData("KVM_CAP_IOEVENTFD")]
    [InlineData("KVM_CAP_IMMEDIATE_EXIT")]
    public void A_kvm_that_lacks_a_capability(string capability)
    {
        NeedsKvm.Check();
        Shim($"if (request == KVM_CHECK_EXTENSION && argument == {capability}) return 0;");
        Run().IsOneLine(ExitCodes.HostError, "/dev/kvm", capability, "vmm check");
    }

    [SkippableFact]
    public void A_kvm_that_allows_fewer_processors()
    {
        NeedsKvm.Check();
        Shim("if (request == KVM_CHECK_EXTENSION && argument == KVM_CAP_MAX_VCPUS) return 4;");
        Run("--cpus", "boot=5").IsOneLine(ExitCodes.BadArguments, "--cpus", "5 vCPUs", "4");
        Assert.Equal(new Outcome(0, "", ""), Run("--cpus", "boot=4"));
    }

    [SkippableTheory]
    [InlineData("KVM_GET_API_VERSION", 11, "version is 11")]
    [InlineData("KVM_CREATE_VM", -1, "create a VM")]
    [InlineData("KVM_CREATE_IRQCHIP", -1, "create the interrupt controllers")]
    [InlineData("KVM_CREATE_PIT2", -1, "8254")]
    [InlineData("KVM_SET_USER_MEMORY_REGION", -1, "memory")]
    [InlineData("KVM_CREATE_VCPU", -1, "create vCPU 0")]
    [InlineData("KVM_SET_CPUID2", -1, "CPUID")]
    [InlineData("KVM_GET_LAPIC", -1, "local APIC")]
    [InlineData("KVM_SET_SREGS", -1, "system registers")]
    [InlineData("KVM_GET_SUPPORTED_CPUID", -1, "CPUID leaves")]
    [InlineData("KVM_GET_VCPU_MMAP_SIZE", -1, "shared area")]
    public void A_kvm_that_refuses(string request, int result, string what)
    {
        NeedsKvm.Check();
        Shim($"if (request == {request}) {{ errno = ENOMEM; return {result}; }}");
        Run().IsOneLine(ExitCodes.HostError, what);
    }

    [SkippableTheory]
    [InlineData("KVM_RUN", "KVM_RUN failed")]
    [InlineData("KVM_SET_SIGNAL_MASK", "signal mask")]
    public void A_kvm_that_stops_working(string request, string what)
    {
        NeedsKvm.Check();
        Shim($"if (request == {request}) {{ errno = EFAULT; return -1; }}");
        Outcome outcome = Run();
        Assert.Equal(ExitCodes.HostError, outcome.Code);
        Assert.StartsWith("vmm: The host could not go on with vCPU 0", outcome.Error, StringComparison.Ordinal);
        Assert.Contains(what, outcome.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/nowhere/at/all/log")]
    [InlineData("/")]
    [InlineData("/proc/version/log")]
    [InlineData("/dev/full/log")]
    public void A_log_file_that_cannot_be_written(string path) =>
        Run("--log-file", path).IsOneLine(ExitCodes.BadArguments, "--log-file", path, "Name a file that can be written");

    [SkippableTheory]
    [InlineData("file=/nowhere/at/all", "/nowhere/at/all", "No such file")]
    [InlineData("file=/", "Is a directory", "")]
    [InlineData("socket=/nowhere/at/all", "/nowhere/at/all", "No such file")]
    [InlineData("socket=/proc/socket", "/proc/socket", "")]
    public void A_console_that_cannot_be_opened(string console, string what, string why)
    {
        foreach (string option in new[] { "--serial", "--debug-console" })
            Run(option, console).IsOneLine(ExitCodes.BadArguments, what, why);
    }

    [SkippableFact]
    public void A_socket_path_too_long() =>
        Run("--serial", "socket=" + new string('s', 200)).IsOneLine(ExitCodes.BadArguments, "too long", "200 bytes", "at most 107");

    [Fact]
    public void A_socket_path_that_is_taken()
    {
        string precious = _vmm.Make("precious", "data"u8);
        Run("--serial", "socket=" + precious).IsOneLine(ExitCodes.BadArguments, precious, "something is there already", "another path");
        Assert.Equal("data", File.ReadAllText(precious));
    }

    [Fact]
    public void Two_consoles_in_one_place() =>
        Run("--serial", "file=a", "--debug-console", "file=a").IsOneLine(ExitCodes.BadArguments, "--serial", "--debug-console", "'a'");

    [Theory]
    [InlineData("--serial")]
    [InlineData("--debug-console")]
    [InlineData("--log-file")]
    public void A_kernel_is_not_written_over(string option)
    {
        byte[] before = File.ReadAllBytes(_kernel);
        Run(option, option == "--log-file" ? _kernel : "file=" + _kernel).IsOneLine(ExitCodes.BadArguments, option, "--kernel");
        Assert.Equal(before, File.ReadAllBytes(_kernel));
    }

    [SkippableFact]
    public void A_console_file_on_a_full_disk()
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("talker", GuestProgram.Elf(a => { a.Print("hello"); a.Hang(); }));
        _vmm.Run("run", "--kernel", kernel, "--serial", "file=/dev/full").IsOneLine(ExitCodes.HostError, "/dev/full", "No space left");
    }

    private static void NeedsRoot() => NeedsKvm.Check(Environment.UserName == "root", "Only root can make a mount namespace everywhere.");

    private Outcome Run(params string[] arguments) => _vmm.Run(["run", "--kernel", _kernel, .. arguments]);

    /// <summary>
    /// Puts a piece of C before ioctl, by a library that is loaded first. The native binary is linked to ioctl; .NET's runtime asks for it by
    /// dlsym of the C library itself, where no other library can come first, so the shim answers there too.
    /// </summary>
    private void Shim(string code)
    {
        string source = _vmm.Make("shim.c", System.Text.Encoding.ASCII.GetBytes(
            $$"""
            #define _GNU_SOURCE
            #include <dlfcn.h>
            #include <errno.h>
            #include <stdarg.h>
            #include <string.h>
            #include <unistd.h>
            #include <sys/syscall.h>
            #include <linux/kvm.h>
            int ioctl(int fd, unsigned long request, ...)
            {
                va_list list;
                va_start(list, request);
                unsigned long argument = va_arg(list, unsigned long);
                va_end(list);
                {{code}}
                return (int)syscall(SYS_ioctl, fd, request, argument);
            }
            void *dlsym(void *library, const char *name)
            {
                static void *(*real)(void *, const char *);
                if (real == NULL)
                    real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
                return strcmp(name, "ioctl") == 0 ? (void *)ioctl : real(library, name);
            }
            """));
        string library = Path.Combine(_vmm.Folder, "shim.so");
        bool there = new[] { "/usr/bin/cc", "/usr/local/bin/cc" }.Any(File.Exists);
        NeedsKvm.Check(there, "There is no C compiler.");
        using var compiler = Process.Start("cc", ["-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]);
        compiler.WaitForExit();
        Assert.Equal(0, compiler.ExitCode);

        // In the shell's exec only, so that the shell itself is not meant.
        _vmm.Prefix = $"export LD_PRELOAD='{library}'; exec";
    }

    private static string Receive(Socket socket)
    {
        var text = new StringBuilder();
        byte[] bytes = new byte[100];
        while (!text.ToString().EndsWith('\n'))
            text.Append(Encoding.UTF8.GetString(bytes, 0, socket.Receive(bytes)));
        return text.ToString();
    }

    private static void SetMostFiles(RunningVmm running, string count)
    {
        using var prlimit = Process.Start("prlimit", ["--pid", running.Id.ToString(CultureInfo.InvariantCulture), $"--nofile={count}:"]);
        prlimit.WaitForExit();
        Assert.Equal(0, prlimit.ExitCode);
    }

    // utime and stime of the console's thread: the 14th and the 15th field, of which the second may have blanks.
    private static long Ticks(RunningVmm running)
    {
        string thread = Directory.GetDirectories($"/proc/{running.Id}/task").Single(task => File.ReadAllText(task + "/comm").Trim() == "console");
        string stat = File.ReadAllText(thread + "/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture);
    }
}
