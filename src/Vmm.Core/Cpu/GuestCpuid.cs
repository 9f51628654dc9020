using System.Numerics;
using Vmm.Core.Interop;

namespace Vmm.Core.Cpu;

/// <summary>
/// What CPUID tells the guest: what KVM supports on this host, with the machine's own topology (one package, one thread a core),
/// the hypervisor bit, and the TSC-deadline timer that the in-kernel LAPIC has.
/// </summary>
internal sealed class GuestCpuid
{
    private const uint HypervisorBit = 1u << 31;
    private const uint TscDeadlineBit = 1u << 24;
    private const uint HttBit = 1u << 28;

    private readonly kvm_cpuid_entry2[] _supported;
    private readonly int _vcpus;
    private readonly int _apicIdBits;

    /// <summary>Prepares the leaves for a machine.</summary>
    /// <param name="supported">KVM_GET_SUPPORTED_CPUID.</param>
    /// <param name="vcpus">How many vCPUs it has, at least 1.</param>
    /// <param name="tscDeadline">Whether KVM emulates the TSC-deadline timer (KVM_CAP_TSC_DEADLINE_TIMER).</param>
    internal GuestCpuid(kvm_cpuid_entry2[] supported, int vcpus, bool tscDeadline)
    {
        _vcpus = vcpus;
        _apicIdBits = vcpus <= 1 ? 0 : 32 - BitOperations.LeadingZeroCount((uint)(vcpus - 1));
        var leaves = new List<kvm_cpuid_entry2>(supported.Length + 4);
        foreach (kvm_cpuid_entry2 leaf in supported)
        {
            // Topology leaves are made anew: what KVM reports there is the host's.
            if (leaf.function is not (0xB or 0x1F))
                leaves.Add(leaf);
        }
        AddTopology(leaves);
        _supported = [.. leaves];
        foreach (ref kvm_cpuid_entry2 leaf in _supported.AsSpan())
            Adjust(ref leaf, tscDeadline);
    }

    /// <summary>Bits of a guest-physical address (leaf 0x8000_0008 EAX[7:0]); 36 where the leaf is missing.</summary>
    internal static int PhysicalAddressBits(kvm_cpuid_entry2[] supported)
    {
        foreach (kvm_cpuid_entry2 leaf in supported)
        {
            if (leaf.function == 0x8000_0008 && (leaf.eax & 0xFF) is >= 32 and <= 52)
                return (int)(leaf.eax & 0xFF);
        }
        return 36;
    }

    /// <summary>The leaves for one vCPU.</summary>
    internal kvm_cpuid_entry2[] For(uint apicId)
    {
        var leaves = (kvm_cpuid_entry2[])_supported.Clone();
        foreach (ref kvm_cpuid_entry2 leaf in leaves.AsSpan())
        {
            switch (leaf.function)
            {
                case 0x1:
                    leaf.ebx = (leaf.ebx & 0x00FFFFFF) | (apicId << 24);
                    break;
                case 0xB or 0x1F:
                    leaf.edx = apicId;
                    break;
                case 0x8000_001E:
                    leaf.eax = apicId;
                    leaf.ebx = (leaf.ebx & 0xFFFF0000) | (apicId & 0xFF);
                    break;
            }
        }
        return leaves;
    }

    private void Adjust(ref kvm_cpuid_entry2 leaf, bool tscDeadline)
    {
        switch (leaf.function)
        {
            case 0x0:
                // Leaf 0xB must be within the highest basic leaf.
                leaf.eax = Math.Max(leaf.eax, 0xB);
                break;
            case 0x1:
                leaf.ecx |= HypervisorBit | (tscDeadline ? TscDeadlineBit : 0);
                leaf.ebx = (leaf.ebx & 0x0000FFFF & ~0xFF00u) | (8u << 8) | ((uint)Math.Min(1 << _apicIdBits, 255) << 16);
                leaf.edx = _vcpus > 1 ? leaf.edx | HttBit : leaf.edx & ~HttBit;
                break;
            case 0x4:
                AdjustCache(ref leaf);
                break;
            case 0x8000_0008:
                leaf.ecx = (leaf.ecx & ~0xF0FFu) | ((uint)_apicIdBits << 12) | (uint)Math.Min(_vcpus - 1, 255);
                break;
            case 0x8000_001D:
                uint sharing = (leaf.eax >> 5 & 7) >= 3 ? (uint)_vcpus - 1 : 0;
                leaf.eax = (leaf.eax & ~(0xFFFu << 14)) | ((sharing & 0xFFF) << 14);
                break;
            case 0x8000_001E:
                // One thread a core, one node.
                leaf.ebx &= 0xFFFF00FF;
                leaf.ecx = 0;
                break;
        }
    }

    /// <summary>Leaf 4 (Intel SDM vol. 2A, CPUID): caches up to level 2 belong to a core, further ones to the package.</summary>
    private void AdjustCache(ref kvm_cpuid_entry2 leaf)
    {
        if ((leaf.eax & 0x1F) == 0)
            return;
        uint sharing = (leaf.eax >> 5 & 7) >= 3 ? (1u << _apicIdBits) - 1 : 0;
        uint cores = (1u << _apicIdBits) - 1;
        leaf.eax = (leaf.eax & 0x3FFF) | ((sharing & 0xFFF) << 14) | ((cores & 0x3F) << 26);
    }

    /// <summary>Leaf 0xB: an SMT level of one thread and a core level of all vCPUs.</summary>
    private void AddTopology(List<kvm_cpuid_entry2> leaves)
    {
        int at = leaves.FindIndex(l => l.function > 0xB);
        kvm_cpuid_entry2[] topology =
        [
            new() { function = 0xB, index = 0, flags = LibC.KVM_CPUID_FLAG_SIGNIFCANT_INDEX, eax = 0, ebx = 1, ecx = 1 << 8 },
            new() { function = 0xB, index = 1, flags = LibC.KVM_CPUID_FLAG_SIGNIFCANT_INDEX, eax = (uint)_apicIdBits, ebx = (uint)_vcpus, ecx = (2 << 8) | 1 },
            new() { function = 0xB, index = 2, flags = LibC.KVM_CPUID_FLAG_SIGNIFCANT_INDEX, ecx = 2 },
        ];
        leaves.InsertRange(at < 0 ? leaves.Count : at, topology);
    }
}
