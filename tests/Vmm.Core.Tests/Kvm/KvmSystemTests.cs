using System.Runtime.InteropServices;
using Vmm.Core.Kvm;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Tests.Kvm;

/// <summary>Opening KVM, and what is said where that fails.</summary>
[Collection(nameof(KvmCollection))]
[System.Runtime.Versioning.SupportedOSPlatform("linux")]
public sealed partial class KvmSystemTests
{
    private const uint Nobody = 65534;

    [Fact]
    public void A_missing_device_is_named()
    {
        VmmException error = Assert.Throws<VmmException>(() => KvmSystem.Open("/dev/no-such-kvm"));
        Assert.Equal(VmmErrorKind.Host, error.Kind);
        Assert.Equal("Cannot open /dev/no-such-kvm: it does not exist; load the kvm_intel or kvm_amd module, enable virtualization in the firmware, or use the sandbox (scripts/demo).", error.Message);
    }

    [Fact]
    public void A_device_without_permission_is_named()
    {
        string path = Path.Combine(Path.GetTempPath(), $"no-kvm-{Guid.NewGuid():N}");
        File.WriteAllBytes(path, []);
        File.SetUnixFileMode(path, UnixFileMode.None);
        try
        {
            VmmException error = Assert.Throws<VmmException>(() => AsNobody(() => KvmSystem.Open(path)));
            Assert.Equal($"Cannot open {path}: permission denied; add the user to the group that owns it (usually 'kvm'), or run as root.", error.Message);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [SkippableFact]
    public void The_real_device_without_permission_is_named()
    {
        HostKvm.Needed();
        Skip.IfNot(geteuid() == 0, "Only root can become somebody without permission.");
        Skip.If((File.GetUnixFileMode("/dev/kvm") & UnixFileMode.OtherWrite) != 0, "Everybody may use /dev/kvm here.");
        VmmException error = Assert.Throws<VmmException>(() => AsNobody(() => KvmSystem.Open()));
        Assert.StartsWith("Cannot open /dev/kvm: permission denied;", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_device_that_is_not_kvm_is_refused_and_closed()
    {
        int before = Directory.GetFiles("/proc/self/fd").Length;
        for (int i = 0; i < 20; i++)
        {
            VmmException error = Assert.Throws<VmmException>(() => KvmSystem.Open("/dev/null"));
            Assert.Equal("Cannot use /dev/null: it does not answer as KVM does; is it the right device node?", error.Message);
        }
        Assert.InRange(Directory.GetFiles("/proc/self/fd").Length, 0, before + 5);
    }

    [Fact]
    public void Anything_else_gives_the_reason_of_the_system()
    {
        VmmException error = Assert.Throws<VmmException>(() => KvmSystem.Open("/"));
        Assert.Equal($"Cannot open /: {strerror(21)} (errno 21).", error.Message);
    }

    [SkippableFact]
    public void It_tells_its_capabilities_and_CPUID()
    {
        HostKvm.Needed();
        using KvmSystem kvm = KvmSystem.Open();
        Assert.True(kvm.VcpuMmapSize >= 0x1000);
        Assert.True(kvm.MaxVcpus >= 4);
        Assert.Equal(0, kvm.CheckExtension(0x7FFF_0000));
        Assert.All(KvmSystem.Required, required => Assert.True(kvm.CheckExtension(required.Capability) > 0, required.Name));
        Assert.Contains(kvm.GetSupportedCpuid(), leaf => leaf.function == 0);
        Assert.Contains(kvm.GetSupportedCpuid(), leaf => leaf.function == 1);
    }

    [SkippableFact]
    public void A_refused_call_says_what_was_being_done()
    {
        HostKvm.Needed();
        using KvmSystem kvm = KvmSystem.Open();
        using KvmVm vm = kvm.CreateVm();
        VmmException error = Assert.Throws<VmmException>(() => vm.CreateVcpu(kvm.MaxVcpus + 100_000));
        Assert.StartsWith($"Cannot create vCPU {kvm.MaxVcpus + 100_000}: Invalid argument (errno 22).", error.Message, StringComparison.Ordinal);
        vm.CreateIrqchip();
        error = Assert.Throws<VmmException>(vm.CreateIrqchip);
        Assert.StartsWith("Cannot create the interrupt controllers in the kernel: ", error.Message, StringComparison.Ordinal);
    }

    /// <summary>
    /// Runs something on a thread whose file-system identity is nobody's, which also takes root's right to open everything from
    /// it. The identity belongs to the thread alone and ends with it.
    /// </summary>
    private static void AsNobody(Action action)
    {
        Exception? thrown = null;
        var thread = new Thread(() =>
        {
            _ = setfsuid(Nobody);
            thrown = Record.Exception(action);
        });
        thread.Start();
        thread.Join();
        if (thrown != null)
            throw thrown;
    }

    [LibraryImport("libc")]
    private static partial int setfsuid(uint uid);
}
