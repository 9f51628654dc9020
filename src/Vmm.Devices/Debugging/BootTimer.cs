using Vmm.Core.Bus;

namespace Vmm.Devices.Debugging;

/// <summary>Which part of the guest's software a mark is of, by the code ranges that Cloud Hypervisor's guests use.</summary>
public enum BootPhase
{
    /// <summary>Port codes 0x00 to 0x1F.</summary>
    Firmware,

    /// <summary>Port codes 0x20 to 0x3F.</summary>
    Bootloader,

    /// <summary>Port codes 0x40 to 0x5F; 0x40 is the kernel's entry and 0x41 its start of init.</summary>
    Kernel,

    /// <summary>Port codes 0x60 to 0x7F.</summary>
    UserSpace,

    /// <summary>Port codes from 0x80 on.</summary>
    Custom,

    /// <summary>Byte 123 at <see cref="BootTimer.Address"/>: Firecracker's guests have booted.</summary>
    Booted,
}

/// <summary>A moment of the guest's boot.</summary>
/// <param name="Phase">What the guest says it is in.</param>
/// <param name="Code">The code it wrote.</param>
/// <param name="Wall">Time since the start.</param>
/// <param name="Cpu">Processor time of this process since the start, all threads.</param>
public readonly record struct BootMark(BootPhase Phase, byte Code, TimeSpan Wall, TimeSpan Cpu);

/// <summary>
/// Measures the guest's boot. Marks come from byte 123 written to <see cref="Address"/>, as in Firecracker's guests, and
/// from codes written to port 0x80 (<see cref="PostCodePort"/>), as in Cloud Hypervisor's. Each code is
/// reported the first time only, so that a guest cannot flood whoever listens; a reset of the machine starts over. No state is saved: a
/// restored guest does not boot.
/// </summary>
public sealed class BootTimer : IBusDevice
{
    /// <summary>Guest-physical address of the MMIO byte.</summary>
    public const ulong Address = 0xC0000000;

    /// <summary>How many bytes are read and written there.</summary>
    public const int Length = 1;

    /// <summary>What a guest that has booted writes.</summary>
    public const byte BootedValue = 123;

    private readonly TimeProvider _clock;
    private readonly Action<BootMark> _report;
    private readonly Func<TimeSpan> _cpuTime;
    private readonly Lock _lock = new();

    // One bit for each code of port 0x80, and one for the MMIO byte.
    private readonly ulong[] _seen = new ulong[5];
    private long _start;
    private TimeSpan _startCpu;

    /// <summary>Makes a timer that counts from a moment that has been.</summary>
    /// <param name="startTimestamp">When it all began, as <paramref name="clock"/>.GetTimestamp() gave it.</param>
    /// <param name="startCpu">Processor time used until then.</param>
    /// <param name="report">Takes the marks, on a vCPU thread with no lock held; returns soon and does not throw.</param>
    /// <param name="clock">What the wall time is measured by.</param>
    /// <param name="cpuTime">Gives the processor time used so far; by default that of this process.</param>
    public BootTimer(long startTimestamp, TimeSpan startCpu, Action<BootMark> report, TimeProvider clock, Func<TimeSpan>? cpuTime = null)
    {
        ArgumentNullException.ThrowIfNull(report);
        ArgumentNullException.ThrowIfNull(clock);
        _start = startTimestamp;
        _startCpu = startCpu;
        _report = report;
        _clock = clock;
        _cpuTime = cpuTime ?? (static () => OperatingSystem.IsLinux() ? Environment.CpuUsage.TotalTime : TimeSpan.Zero);
    }

    /// <summary>Takes a code that the guest wrote to port 0x80.</summary>
    public void PostCode(byte code)
    {
        if (FirstTime(code))
            Report(PhaseOf(code), code);
    }

    /// <summary>The phase that a port code belongs to.</summary>
    public static BootPhase PhaseOf(byte code) => code switch
    {
        < 0x20 => BootPhase.Firmware,
        < 0x40 => BootPhase.Bootloader,
        < 0x60 => BootPhase.Kernel,
        < 0x80 => BootPhase.UserSpace,
        _ => BootPhase.Custom,
    };

    /// <summary>Nothing is read here.</summary>
    public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset == 0 && !data.IsEmpty && data[0] == BootedValue && FirstTime(256))
            Report(BootPhase.Booted, BootedValue);
    }

    /// <summary>Starts over from now, for a machine that was reset.</summary>
    public void Restart()
    {
        lock (_lock)
        {
            _start = _clock.GetTimestamp();
            _startCpu = _cpuTime();
            Array.Clear(_seen);
        }
    }

    private bool FirstTime(int mark)
    {
        lock (_lock)
        {
            ulong bit = 1UL << (mark % 64);
            ref ulong word = ref _seen[mark / 64];
            bool first = (word & bit) == 0;
            word |= bit;
            return first;
        }
    }

    private void Report(BootPhase phase, byte code)
    {
        long now = _clock.GetTimestamp();
        TimeSpan cpu = _cpuTime();
        BootMark mark;
        lock (_lock)
            mark = new BootMark(phase, code, _clock.GetElapsedTime(_start, now), cpu - _startCpu);
        _report(mark);
    }
}
