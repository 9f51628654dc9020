using Vmm.Core;
using Vmm.Machine.HostCheck;

namespace Vmm.Machine.Tests.HostCheck;

public sealed class HostCheckerTests
{
    [Fact]
    public void A_missing_device_is_an_answer()
    {
        HostReport report = HostChecker.Check("/dev/there-is-no-kvm", new HostFacts(), () => 1e9);
        Assert.Equal(HostVerdict.Unusable, report.Verdict);
        Assert.Contains("does not exist", report.DeviceProblem, StringComparison.Ordinal);
        Assert.True(report.MemoryBytes > 0);
    }

    [Fact]
    public void A_device_that_is_no_kvm_is_an_answer()
    {
        HostReport report = HostChecker.Check("/dev/null", new HostFacts(), () => 1e9);
        Assert.Equal(HostVerdict.Unusable, report.Verdict);
        Assert.NotNull(report.DeviceProblem);
    }

    [Theory]
    [InlineData(1, 1e9, HostVerdict.Ready)]
    [InlineData(1, 0.5e6, HostVerdict.NeedsSandbox)]
    [InlineData(1, 0, HostVerdict.NeedsSandbox)]
    [InlineData(0, 1e9, HostVerdict.Unusable)]
    public void The_verdict_follows_from_capabilities_and_speed(int capability, double speed, HostVerdict expected)
    {
        var report = new HostReport
        {
            Device = "/dev/kvm",
            Required = [new HostCapability("KVM_CAP_X", capability)],
            InstructionsPerSecond = speed,
            Verdict = HostVerdict.Unusable,
            Next = "",
        };
        (HostVerdict verdict, string next) = HostChecker.Judge(report);
        Assert.Equal(expected, verdict);
        if (capability == 0)
            Assert.Contains("KVM_CAP_X", next, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void This_hosts_kvm_answers()
    {
        Skip.IfNot(File.Exists("/dev/kvm"), "There is no /dev/kvm.");
        HostReport report = HostChecker.Check("/dev/kvm", new HostFacts(), () => throw VmmException.Host("The probe was broken on purpose."));
        Skip.If(report.DeviceProblem is not null, report.DeviceProblem);
        Assert.Equal(12, report.ApiVersion);
        Assert.InRange(report.MaxVcpus!.Value, 1, 1 << 16);
        Assert.Equal("The probe was broken on purpose.", report.ProbeProblem);
        Assert.Equal(HostVerdict.Unusable, report.Verdict);
    }
}
