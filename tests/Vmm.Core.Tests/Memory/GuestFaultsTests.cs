using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Memory;

/// <summary>The answers of many are one.</summary>
public sealed class GuestFaultsTests
{
    [Theory]
    [InlineData(GuestFaultAnswer.NotHere)]
    [InlineData(GuestFaultAnswer.NotHere, GuestFaultAnswer.NotHere)]
    [InlineData(GuestFaultAnswer.Unexplained, GuestFaultAnswer.NotHere, GuestFaultAnswer.Unexplained)]
    [InlineData(GuestFaultAnswer.Resolved, GuestFaultAnswer.Unexplained, GuestFaultAnswer.Resolved, GuestFaultAnswer.NotHere)]
    [InlineData(GuestFaultAnswer.Resolved, GuestFaultAnswer.Resolved, GuestFaultAnswer.Unexplained)]
    public void All_are_asked_and_the_best_answer_counts(GuestFaultAnswer expected, params GuestFaultAnswer[] answers)
    {
        var faults = new GuestFaults();
        Asked[] all = [.. answers.Select(answer => new Asked(answer))];
        foreach (Asked one in all)
            faults.Add(one);
        Assert.Equal(expected, faults.Resolve());
        Assert.All(all, one => Assert.Equal(1, one.Times));
    }

    [Fact]
    public void They_give_up_one_at_a_time()
    {
        var faults = new GuestFaults();
        Assert.False(faults.GiveUp());
        Asked first = new(GuestFaultAnswer.Unexplained), second = new(GuestFaultAnswer.NotHere) { Has = true }, third = new(GuestFaultAnswer.NotHere) { Has = true };
        faults.Add(first);
        faults.Add(second);
        faults.Add(third);
        Assert.True(faults.GiveUp());
        Assert.Equal((false, true), (second.Has, third.Has));
        Assert.True(faults.GiveUp());
        Assert.False(faults.GiveUp());
    }

    private sealed class Asked(GuestFaultAnswer answer) : IGuestFaultHandler
    {
        public int Times { get; private set; }

        public bool Has { get; set; }

        public bool GiveUp() => Has && !(Has = false);

        public GuestFaultAnswer Resolve()
        {
            Times++;
            return answer;
        }
    }
}
