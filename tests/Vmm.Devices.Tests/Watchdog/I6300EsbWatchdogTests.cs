using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Watchdog;
using static Vmm.Devices.Pci.PciRegisters;

namespace Vmm.Devices.Tests.Watchdog;

/// <summary>The watchdog of the 6300ESB.</summary>
public sealed class I6300EsbWatchdogTests : IDisposable
{
    private const ulong Base = 0xD000_0000;
    private const int ConfigurationRegister = 0x60, LockRegister = 0x68;

    private readonly Machine _machine = new(WatchdogAction.Reset);

    public void Dispose() => _machine.Watchdog.Dispose();

    [Fact]
    public void Linux_finds_it()
    {
        Assert.Equal(0x25AB_8086u, _machine.ReadConfiguration(VendorId, 4));
        Assert.Equal(0x0880_0000u, _machine.ReadConfiguration(RevisionId, 4));
        _machine.WriteConfiguration(Bar0, 4, uint.MaxValue);
        Assert.Equal(0xFFFF_FFF0u, _machine.ReadConfiguration(Bar0, 4));
        _machine.WriteConfiguration(Bar0, 4, (uint)Base);
        Assert.Equal(0xF_FFFFu, _machine.Peek(0, 4));
        Assert.Equal(0xF_FFFFu, _machine.Peek(4, 4));
        Assert.Equal(0u, _machine.Peek(12, 2));
    }

    /// <summary>What drivers/watchdog/i6300esb.c does, with a heartbeat of 30 seconds.</summary>
    [Fact]
    public void A_guest_that_stops_reloading_is_reset_after_its_heartbeat()
    {
        StartLikeLinux(30);
        for (int i = 0; i < 10; i++)
        {
            _machine.Advance(TimeSpan.FromSeconds(29));
            Keepalive();
        }
        Assert.Empty(_machine.Seen);
        _machine.Advance(TimeSpan.FromSeconds(30));
        Assert.Empty(_machine.Seen);
        // 1 kHz is really 33 MHz / 2^15.
        _machine.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal([WatchdogAction.Reset], _machine.Seen);
        Assert.Equal(1, _machine.Watchdog.Expirations);
        // The next kernel sees why it was started.
        _machine.Watchdog.Reset();
        _machine.Place();
        Assert.Equal(0x200u, _machine.Peek(12, 2));
        Unlock();
        _machine.Poke(12, 2, 0x300);
        Assert.Equal(0u, _machine.Peek(12, 2));
        _machine.Advance(TimeSpan.FromDays(1));
        Assert.Single(_machine.Seen);
    }

    [Fact]
    public void A_guest_may_stop_it_unless_it_locked_it()
    {
        StartLikeLinux(30);
        _machine.WriteConfiguration(LockRegister, 1, 0);
        _machine.Advance(TimeSpan.FromDays(1));
        Assert.Empty(_machine.Seen);
        _machine.WriteConfiguration(LockRegister, 1, 3);
        _machine.WriteConfiguration(LockRegister, 1, 0);
        _machine.WriteConfiguration(LockRegister - 2, 4, 0);
        Assert.Equal(3u, _machine.ReadConfiguration(LockRegister, 1));
        _machine.Advance(TimeSpan.FromSeconds(32));
        Assert.Single(_machine.Seen);
    }

    [Theory]
    [InlineData(WatchdogAction.None)]
    [InlineData(WatchdogAction.Pause)]
    [InlineData(WatchdogAction.Panic)]
    [InlineData(WatchdogAction.PowerOff)]
    public void The_action_is_the_one_that_was_configured_and_is_taken_once(WatchdogAction action)
    {
        var machine = new Machine(action);
        using I6300EsbWatchdog watchdog = machine.Watchdog;
        machine.WriteConfiguration(LockRegister, 1, 7);
        machine.Advance(TimeSpan.FromHours(2));
        Assert.Equal([action], machine.Seen);
    }

    [Fact]
    public void A_machine_made_anew_after_a_timeout_says_so_and_a_disposed_one_tells_nobody()
    {
        var machine = new Machine(WatchdogAction.Reset, timedOut: true);
        Assert.Equal(0x200u, machine.Peek(12, 2));
        machine.WriteConfiguration(LockRegister, 1, 2);
        machine.Watchdog.Dispose();
        machine.Advance(TimeSpan.FromHours(2));
        Assert.Empty(machine.Seen);
        Assert.Equal(uint.MaxValue, machine.Peek(0, 4));
    }

    [Fact]
    public void The_first_stage_interrupts_if_the_guest_wants_it()
    {
        _machine.WriteConfiguration(LockRegister, 1, 2);
        _machine.Advance(TimeSpan.FromSeconds(1041));
        Assert.False(_machine.Line.High);
        _machine.Advance(TimeSpan.FromSeconds(1));
        Assert.True(_machine.Line.High);
        Assert.Equal(1u, _machine.Peek(8, 4));
        _machine.Poke(8, 4, 1);
        Assert.False(_machine.Line.High);
        Assert.Equal(0u, _machine.Peek(8, 4));
        Assert.Empty(_machine.Seen);
    }

    [Fact]
    public void A_paused_machine_has_a_paused_watchdog()
    {
        StartLikeLinux(30);
        _machine.Advance(TimeSpan.FromSeconds(29));
        _machine.Watchdog.Pause();
        _machine.Watchdog.Pause();
        _machine.Advance(TimeSpan.FromDays(3));
        WatchdogState state = _machine.Watchdog.Save();
        _machine.Watchdog.Resume();
        _machine.Advance(TimeSpan.FromMilliseconds(500));
        Assert.Empty(_machine.Seen);
        _machine.Advance(TimeSpan.FromSeconds(2));
        Assert.Single(_machine.Seen);

        var other = new Machine(WatchdogAction.Reset);
        using I6300EsbWatchdog restored = other.Watchdog;
        restored.Restore(state);
        other.Advance(TimeSpan.FromMilliseconds(500));
        Assert.Empty(other.Seen);
        other.Advance(TimeSpan.FromSeconds(2));
        Assert.Single(other.Seen);
        Assert.Throws<VmmException>(() => restored.Restore(state with { Version = 2 }));
    }

    [Fact]
    public void Accesses_allocate_nothing()
    {
        StartLikeLinux(30);
        Keepalive();
        long before = ThreadAllocations.Start();
        for (int i = 0; i < 1000; i++)
            Keepalive();
        Assert.Equal(0, ThreadAllocations.Since(before));
    }

    /// <summary>Any writes, mixed with what drivers do and with time that passes, against a simulation in steps of time.</summary>
    [Fact]
    public void Register_sequences_do_what_a_model_does()
    {
        Gen<Step> steps = Gen.Frequency(
            (5, Gen.Constant(new Step(Kind.Unlock))),
            (4, from offset in Gen.Elements(0, 4, 8, 12, 12, 12, 13, 2)
                from length in Gen.Elements(1, 2, 4, 4)
                from value in Gen.OneOf(Gen.Choose(0, 600), Gen.Elements(0x80, 0x86, 0x100, 0x200, 0x300, 0xF_FFFF, -1))
                select new Step(Kind.Write, offset, length, (uint)value)),
            (2, from value in Gen.Choose(0, 7) select new Step(Kind.Lock, Value: (uint)value)),
            (1, from value in Gen.Choose(0, 0x3F) select new Step(Kind.Configure, Value: (uint)value)),
            (4, from value in Gen.Frequency((6, Gen.Choose(0, 900)), (3, Gen.Choose(0, 20_000)), (1, Gen.Elements(520_000, 1_041_000))) select new Step(Kind.Advance, Value: (uint)value)),
            (1, Gen.Constant(new Step(Kind.Reset))),
            (1, Gen.Constant(new Step(Kind.SaveRestore))));
        Prop.ForAll(steps.ArrayOf().ToArbitrary(), all =>
        {
            var machine = new Machine(WatchdogAction.None);
            using I6300EsbWatchdog watchdog = machine.Watchdog;
            var model = new Model();
            foreach (Step step in all)
            {
                machine.Do(step);
                model.Do(step);
                if (machine.Peek(0, 4) != model.Preload1 || machine.Peek(4, 4) != model.Preload2
                    || machine.Peek(8, 4) != (model.Interrupt ? 1u : 0) || machine.Peek(12, 4) != (model.TimedOut ? 0x200u : 0)
                    || machine.ReadConfiguration(LockRegister, 1) != model.Lock || machine.Line.High != model.Interrupt
                    || machine.Seen.Count != model.Expirations || machine.Clock.Armed != (model.Stage == 0 ? 0 : 1))
                    return false;
            }
            return true;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000));
    }

    private void StartLikeLinux(uint seconds)
    {
        _machine.WriteConfiguration(ConfigurationRegister, 2, 0x0003);
        _machine.WriteConfiguration(LockRegister, 1, 0);
        Unlock();
        _machine.Poke(12, 2, 0x300);
        Unlock();
        _machine.Poke(0, 4, seconds << 9);
        Unlock();
        _machine.Poke(4, 4, seconds << 9);
        Keepalive();
        _machine.WriteConfiguration(LockRegister, 1, 2);
    }

    private void Keepalive()
    {
        Unlock();
        _machine.Poke(12, 2, 0x100);
    }

    private void Unlock()
    {
        _machine.Poke(12, 1, 0x80);
        _machine.Poke(12, 1, 0x86);
    }

    private enum Kind
    {
        Unlock,
        Write,
        Lock,
        Configure,
        Advance,
        Reset,
        SaveRestore,
    }

    private sealed record Step(Kind Kind, int Offset = 0, int Length = 0, uint Value = 0);

    private sealed class Machine : IWatchdogObserver
    {
        private readonly AddressBus _mmio = new("MMIO");

        public Machine(WatchdogAction action, bool timedOut = false)
        {
            Watchdog = new I6300EsbWatchdog(new WatchdogConfig(action, timedOut), _mmio, this, Clock, Line);
            Place();
        }

        public ManualClock Clock { get; } = new();

        public FakeLine Line { get; } = new();

        public List<WatchdogAction> Seen { get; } = [];

        public I6300EsbWatchdog Watchdog { get; }

        public void Expired(WatchdogAction action) => Seen.Add(action);

        public void Advance(TimeSpan by) => Clock.Advance(by);

        public void Place()
        {
            WriteConfiguration(Bar0, 4, (uint)Base);
            WriteConfiguration(Command, 2, CommandMemory);
        }

        public void Do(Step step)
        {
            switch (step.Kind)
            {
                case Kind.Unlock:
                    Poke(12, 1, 0x80);
                    Poke(12, 1, 0x86);
                    break;
                case Kind.Write:
                    Poke((ulong)step.Offset, step.Length, step.Value);
                    break;
                case Kind.Lock:
                    WriteConfiguration(LockRegister, 1, step.Value);
                    break;
                case Kind.Configure:
                    WriteConfiguration(ConfigurationRegister, 2, step.Value);
                    break;
                case Kind.Advance:
                    Advance(TimeSpan.FromMilliseconds(step.Value));
                    break;
                case Kind.Reset:
                    Watchdog.Reset();
                    Place();
                    break;
                default:
                    Watchdog.Restore(Watchdog.Save());
                    break;
            }
        }

        public uint Peek(ulong offset, int length)
        {
            Span<byte> data = stackalloc byte[4];
            data.Clear();
            _mmio.Read(Base + offset, data[..length]);
            return BitConverter.ToUInt32(data);
        }

        public void Poke(ulong offset, int length, uint value)
        {
            Span<byte> data = stackalloc byte[4];
            BitConverter.TryWriteBytes(data, value);
            _mmio.Write(Base + offset, data[..length]);
        }

        public uint ReadConfiguration(int offset, int length)
        {
            Span<byte> data = stackalloc byte[4];
            data.Clear();
            Watchdog.ReadConfiguration(offset, data[..length]);
            return BitConverter.ToUInt32(data);
        }

        public void WriteConfiguration(int offset, int length, uint value)
        {
            Span<byte> data = stackalloc byte[4];
            BitConverter.TryWriteBytes(data, value);
            Watchdog.WriteConfiguration(offset, data[..length]);
        }
    }

    /// <summary>What the data sheet says, in units of 100 ns, without timers.</summary>
    private sealed class Model
    {
        private long _left;
        private uint _configuration;
        private int _unlock;

        public uint Preload1 { get; private set; } = 0xF_FFFF;

        public uint Preload2 { get; private set; } = 0xF_FFFF;

        public uint Lock { get; private set; }

        public bool Interrupt { get; private set; }

        public bool TimedOut { get; private set; }

        public int Stage { get; private set; }

        public int Expirations { get; private set; }

        public void Do(Step step)
        {
            switch (step.Kind)
            {
                case Kind.Unlock:
                    _unlock = 2;
                    break;
                case Kind.Write:
                    Write(step.Offset, step.Length, step.Value & (uint)((1UL << (8 * step.Length)) - 1));
                    break;
                case Kind.Lock:
                    if ((Lock & 1) != 0)
                        break;
                    uint old = Lock;
                    Lock = step.Value;
                    if ((Lock & 2) == 0)
                        Stage = 0;
                    else if ((old & 2) == 0)
                        Enter(1);
                    break;
                case Kind.Configure:
                    _configuration = step.Value & 0x27;
                    break;
                case Kind.Advance:
                    Advance(step.Value * TimeSpan.TicksPerMillisecond);
                    break;
                case Kind.Reset:
                    Preload1 = Preload2 = 0xF_FFFF;
                    Lock = _configuration = 0;
                    _unlock = Stage = 0;
                    Interrupt = false;
                    break;
            }
        }

        private void Write(int offset, int length, uint value)
        {
            // Past the end of the window nobody answers.
            if (offset + length > 16)
                return;
            if (offset == 8)
            {
                Interrupt &= (value & 1) == 0;
                return;
            }
            int unlock = _unlock;
            _unlock = offset == 12 && value == 0x80 ? 1 : offset == 12 && value == 0x86 && unlock == 1 ? 2 : 0;
            if (unlock != 2 || _unlock != 0)
                return;
            if (offset == 0 && length == 4)
                Preload1 = value & 0xF_FFFF;
            if (offset == 4 && length == 4)
                Preload2 = value & 0xF_FFFF;
            if (offset != 12 || length == 1)
                return;
            TimedOut &= (value & 0x200) == 0;
            if ((value & 0x100) != 0 && (Lock & 2) != 0)
                Enter(1);
        }

        private void Enter(int stage)
        {
            Stage = stage;
            long clocks = (long)(stage == 1 ? Preload1 : Preload2) << ((_configuration & 4) != 0 ? 5 : 15);
            _left = Math.Max(clocks * 10 / 33, 10_000);
        }

        private void Advance(long by)
        {
            while (Stage != 0 && _left <= by)
            {
                by -= _left;
                if (Stage == 1)
                {
                    Interrupt |= (_configuration & 3) == 0;
                    Enter(2);
                }
                else if ((_configuration & 0x20) == 0)
                {
                    Expirations++;
                    TimedOut = true;
                    Lock = 0;
                    Stage = 0;
                }
                else if ((Lock & 4) != 0)
                {
                    Enter(1);
                }
                else
                {
                    Stage = 0;
                }
            }
            _left -= by;
        }
    }
}
