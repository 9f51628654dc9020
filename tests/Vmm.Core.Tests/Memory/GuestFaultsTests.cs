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

    private sealed class Asked(GuestFaultAnswer answer) : IGuestFaultHandler
    {
        public int Times { get; private set; }

        public GuestFaultAnswer Resolve()
        {
            Times++;
            return answer;
        }
    }
}
