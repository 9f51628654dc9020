namespace Vmm.Core.Cpu;

/// <summary>Exits to user space of one vCPU since it was made; written by its thread alone.</summary>
internal struct VcpuCounters
{
    /// <summary>Port reads and writes.</summary>
    internal long PortIo;

    /// <summary>MMIO reads and writes.</summary>
    internal long Mmio;

    /// <summary>Interrupted to serve a job, a pause or a stop.</summary>
    internal long Kicks;

    /// <summary>Everything else.</summary>
    internal long Other;
}
