namespace Vmm.Core.Bus;

/// <summary>What a guest can ask of, or tell, the machine as a whole.</summary>
public enum GuestEvent
{
    /// <summary>Power off (ACPI S5 or an equivalent).</summary>
    PowerOff,

    /// <summary>Reset the machine (ACPI reset register, i8042, port 0xCF9).</summary>
    Reset,

    /// <summary>The guest's kernel panicked (pvpanic bit 0).</summary>
    Panic,

    /// <summary>The guest's kernel panicked and goes on into its crash kernel (pvpanic bit 1).</summary>
    CrashLoaded,
}

/// <summary>Takes what devices report about the machine as a whole. Callable from any thread; returns at once.</summary>
public interface IGuestEventSink
{
    /// <summary>Reports an event. The first one that ends the machine wins.</summary>
    void Signal(GuestEvent guestEvent);
}
