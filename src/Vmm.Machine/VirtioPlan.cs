using Vmm.Core.Memory;
using Vmm.Virtio;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Transport;

namespace Vmm.Machine;

/// <summary>What a life of the machine offers to a device that is made for it.</summary>
/// <param name="Layout">Where memory is.</param>
/// <param name="Ram">The guest's RAM.</param>
/// <param name="Slots">The guest's address space.</param>
/// <param name="SharedMemory">How many mappings its shared windows may have, together with all others of the machine.</param>
/// <param name="Threads">Who serves queues.</param>
/// <param name="Report">Takes sentences about what went wrong at a device, as often as a guest provokes them.</param>
internal sealed record DeviceSurroundings(
    MemoryLayout Layout, GuestRam Ram, IGuestMemorySlots Slots, SharedMemoryQuota SharedMemory, IoThreads Threads, Action<string> Report);

/// <summary>A virtio device that every life of the machine has: what it sits on, and how it is made.</summary>
/// <param name="Id">Its name, unique in the machine.</param>
/// <param name="Bus">What it sits on.</param>
/// <param name="Withheld">Features that it could have and does not offer.</param>
/// <param name="Make">Makes it anew.</param>
internal sealed record VirtioPlan(string Id, VirtioBus Bus, ulong Withheld, Func<DeviceSurroundings, VirtioDevice> Make);
