using Vmm.Core.Cpu;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Cpu;

public sealed class FaultWatchTests : IDisposable
{
    private readonly Clock _clock = new();
    private readonly Handler _handler = new();
    private readonly long?[] _unsettled = [0, 0];
    private readonly Owned _owned = new();
    private readonly FaultWatch _watch;

    public FaultWatchTests() => _watch = new FaultWatch(_handler, [() => _unsettled[0], () => _unsettled[1]], _clock, [_owned]);

    public void Dispose() => _watch.Dispose();

    [Fact]
    public void A_vCPU_whose_faults_nothing_settles_is_stuck()
    {
        _clock.Tick();
        Assert.Equal(0, _handler.Calls);
        _unsettled[1] += FaultWatch.Threshold;
        _clock.Tick();
        Assert.Equal(1, _handler.Calls);
        _clock.Tick();
        Assert.Equal(1, _handler.Calls);
    }

    [Fact]
    public void Few_faults_are_somebody_who_waits_for_a_disk()
    {
        for (int i = 0; i < 100; i++)
        {
            _unsettled[i % 2] += FaultWatch.Threshold - 1;
            _clock.Tick();
        }
        Assert.Equal(0, _handler.Calls);
    }

    [Fact]
    public void What_there_was_before_the_first_look_means_nothing()
    {
        _unsettled[0] = 1_000_000;
        _clock.Tick();
        Assert.Equal(0, _handler.Calls);
    }

    [Fact]
    public void A_vCPU_that_cannot_be_asked_is_not_stuck()
    {
        _clock.Tick();
        _unsettled[0] = null;
        _clock.Tick();
        _unsettled[0] = 1_000_000;
        _clock.Tick();
        Assert.Equal(0, _handler.Calls);
    }

    [Fact]
    public void It_lets_go_of_what_it_reads_when_nobody_looks_any_more()
    {
        _handler.Meanwhile = () =>
        {
            // On another thread, as a machine that ends while a file keeps the look waiting.
            var other = new Thread(_watch.Dispose);
            other.Start();
            other.Join();
            Assert.False(_owned.IsDisposed);
        };
        _clock.Tick();
        _unsettled[0] += FaultWatch.Threshold;
        _clock.Tick();
        Assert.Equal(1, _handler.Calls);
        Assert.True(_owned.IsDisposed);
    }

    [SkippableFact]
    public void Kvm_tells_of_a_vCPU()
    {
        Skip.IfNot(File.Exists("/dev/kvm"), "there is no /dev/kvm");
        using KvmSystem kvm = KvmSystem.Open();
        using KvmVm vm = kvm.CreateVm();
        using KvmVcpu vcpu = vm.CreateVcpu(0);
        using KvmFaultStatistics? statistics = KvmFaultStatistics.TryOpen(vcpu);
        Skip.If(statistics == null, "this KVM has no binary statistics of faults");
        Assert.True(statistics.TryReadUnsettled(out long count));
        Assert.Equal(0, count);
    }

    private sealed class Owned : IDisposable
    {
        internal bool IsDisposed { get; private set; }

        public void Dispose() => IsDisposed = true;
    }

    private sealed class Handler : IGuestFaultHandler
    {
        internal int Calls { get; private set; }

        internal Action? Meanwhile { get; set; }

        public bool GiveUp() => false;

        public GuestFaultAnswer Resolve()
        {
            Calls++;
            Meanwhile?.Invoke();
            return GuestFaultAnswer.Unexplained;
        }
    }

    private sealed class Clock : TimeProvider
    {
        private Action? _look;

        internal void Tick() => _look?.Invoke();

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            Assert.Equal(FaultWatch.Interval, period);
            _look = () => callback(state);
            return new Timer();
        }

        private sealed class Timer : ITimer
        {
            public bool Change(TimeSpan dueTime, TimeSpan period) => true;

            public void Dispose()
            {
            }

            public ValueTask DisposeAsync() => ValueTask.CompletedTask;
        }
    }
}
