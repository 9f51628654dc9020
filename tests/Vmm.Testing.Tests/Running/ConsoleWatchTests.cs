using Vmm.Machine;
using Vmm.Testing.Running;
using Vmm.Testing.Specification;

namespace Vmm.Testing.Tests.Running;

/// <summary>What a console's text comes to, without a machine.</summary>
public sealed class ConsoleWatchTests
{
    [Fact]
    public void Steps_are_met_in_order_also_on_one_line()
    {
        var watch = new ConsoleWatch(Spec("a", "b", "a"));
        watch.Line(default, "b");
        Assert.Equal(0, watch.Step);
        watch.Line(default, "a b");
        Assert.Equal(2, watch.Step);
        Assert.Null(watch.Outcome);
        watch.Line(default, "xa");
        Assert.Equal(Verdict.Pass, watch.Outcome!.Verdict);
    }

    [Fact]
    public void An_unfinished_line_counts_once()
    {
        var watch = new ConsoleWatch(Spec("# ", "# "));
        watch.Unfinished(default, "# ");
        watch.Unfinished(default, "# l");
        watch.Line(default, "# ls");
        Assert.Equal(1, watch.Step);
        watch.Unfinished(default, "# ");
        Assert.Equal(2, watch.Step);
    }

    [Fact]
    public void What_is_sent_follows_what_is_waited_for()
    {
        var watch = new ConsoleWatch(new TestSpec { Steps = [TestStep.Parse("t", "send=x"), TestStep.Parse("t", "wait=login"), TestStep.Parse("t", "send=root\\n"), TestStep.Parse("t", "wait=#")] });
        Assert.Empty(watch.ToSend);
        watch.Begin(default);
        Assert.Equal(["x"], watch.ToSend);
        watch.ToSend.Clear();
        watch.Unfinished(default, "login");
        Assert.Equal(["root\n"], watch.ToSend);
    }

    [Fact]
    public void What_is_forbidden_wins_over_what_is_expected_on_the_same_line()
    {
        var watch = new ConsoleWatch(Spec("ok") with { Forbid = [TestStep.Pattern("t", "bad")] });
        watch.Line(default, "ok bad");
        Assert.Equal((Verdict.ForbiddenText, "forbidden /bad/"), (watch.Outcome!.Verdict, watch.Outcome.Title));
    }

    [Fact]
    public void Half_a_line_is_not_yet_what_is_forbidden()
    {
        var watch = new ConsoleWatch(new TestSpec { Forbid = [TestStep.Pattern("t", "token=t(?!5[.])")] });
        watch.Unfinished(default, "token=t");
        watch.Line(default, "token=t5.");
        Assert.Null(watch.Outcome);
        watch.Line(default, "token=t6.");
        Assert.Equal(Verdict.ForbiddenText, watch.Outcome!.Verdict);
    }

    [Theory]
    [InlineData("x\nVMM-EXIT=7", 7u)]
    [InlineData("VMM-EXIT=7\n[    1.234567] reboot: Power down", 7u)]
    [InlineData("VMM-EXIT=7\n<0>[    1.234567] reboot: Power down", 7u)]
    [InlineData("VMM-EXIT=0", 0u)]
    [InlineData("VMM-EXIT=7\nmore", null)]
    [InlineData("VMM-EXIT=99999999999", null)]
    [InlineData("aVMM-EXIT=1", null)]
    public void The_last_line_may_hand_over_a_code(string lines, uint? code)
    {
        var watch = new ConsoleWatch(new TestSpec());
        foreach (string line in lines.Split('\n'))
            watch.Line(default, line);
        Assert.Equal(code, watch.Code);
    }

    [Fact]
    public void With_an_end_to_wait_for_the_last_step_is_no_verdict()
    {
        var watch = new ConsoleWatch(Spec("a") with { Exits = [VmExitReason.PowerOff] });
        watch.Line(default, "a");
        Assert.True(watch.StepsDone);
        Assert.Null(watch.Outcome);
    }

    [Fact]
    public void A_kernel_that_warns_for_ever_fills_no_memory_and_its_panic_is_still_told()
    {
        var watch = new ConsoleWatch(Spec("never"));
        for (int i = 0; i < 10 * ConsoleWatch.MaximumReports; i++)
        {
            watch.Line(default, $"[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:{i} warns+0x1/0x2");
            watch.Line(default, "[    1.000000] ---[ end trace 0000000000000000 ]---");
        }
        Assert.Equal(ConsoleWatch.MaximumReports, watch.Reports.Count);
        Assert.Null(watch.Outcome);
        watch.Line(default, "[    2.000000] Kernel panic - not syncing: at last");
        watch.Line(default, "[    2.000000] ---[ end Kernel panic - not syncing: at last ]---");
        Assert.Equal("kernel panic: at last", watch.Outcome!.Title);
        Assert.Equal("kernel panic: at last", watch.Telling.First().Title);
    }

    private static TestSpec Spec(params string[] patterns) => new() { Steps = [.. patterns.Select(pattern => new TestStep(TestStep.Pattern("t", pattern), null))] };
}
