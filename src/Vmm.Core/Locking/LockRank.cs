namespace Vmm.Core.Locking;

/// <summary>
/// The order of the program's locks: who holds one takes only such as come after it. Locks that are not here are leaves: while one is held,
/// nothing else is locked and nobody is waited for.
/// </summary>
internal enum LockRank
{
    /// <summary>The life of a machine: whether it has one, and who may call it.</summary>
    Machine = 10,

    /// <summary>One device on its bus: one call of its driver at a time.</summary>
    Transport = 20,

    /// <summary>Whether the back-end of a device may map into its shared memory now.</summary>
    DeviceMappings = 30,

    /// <summary>What is mapped into one region of shared memory.</summary>
    SharedMemory = 40,

    /// <summary>What a bus has at which address.</summary>
    Bus = 50,

    /// <summary>Who is asked when a guest faults.</summary>
    GuestFaults = 55,

    /// <summary>The memory slots of a VM.</summary>
    MemorySlots = 60,

    /// <summary>The interrupt routes of a VM.</summary>
    InterruptRoutes = 70,

    /// <summary>The copy of a configuration space.</summary>
    Configuration = 80,
}
