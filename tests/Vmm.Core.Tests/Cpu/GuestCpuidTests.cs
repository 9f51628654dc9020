using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Tests.Kvm;

namespace Vmm.Core.Tests.Cpu;

/// <summary>The topology that CPUID tells, for what a large Intel, a large AMD, a minimal and this host support.</summary>
public sealed class GuestCpuidTests
{
    private const uint Indexed = LibC.KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

    private static readonly kvm_cpuid_entry2[] Intel =
    [
        new() { function = 0, eax = 0x1F, ebx = 0x756E6547, edx = 0x49656E69, ecx = 0x6C65746E },
        new() { function = 1, eax = 0x806F8, ebx = 0x2A40_0800, ecx = 0x7EFA3203, edx = 0x1FABFBFF },
        new() { function = 4, index = 0, flags = Indexed, eax = 0xFC004121, ebx = 0x02C0003F, ecx = 0x3F },
        new() { function = 4, index = 2, flags = Indexed, eax = 0xFC004143, ebx = 0x03C0003F, ecx = 0x7FF },
        new() { function = 4, index = 3, flags = Indexed, eax = 0xFC1FC163, ebx = 0x0380003F, ecx = 0x1BFFF },
        new() { function = 4, index = 4, flags = Indexed },
        new() { function = 0xB, index = 0, flags = Indexed, eax = 1, ebx = 2, ecx = 0x100, edx = 0x2A },
        new() { function = 0xB, index = 1, flags = Indexed, eax = 7, ebx = 112, ecx = 0x201, edx = 0x2A },
        new() { function = 0x1F, index = 0, flags = Indexed, eax = 1, ebx = 2, ecx = 0x100, edx = 0x2A },
        new() { function = 0x8000_0000, eax = 0x8000_0008 },
        new() { function = 0x8000_0008, eax = 0x3934 },
    ];

    private static readonly kvm_cpuid_entry2[] Amd =
    [
        new() { function = 0, eax = 0x10, ebx = 0x68747541 },
        new() { function = 1, eax = 0xA00F11, ebx = 0x0540_0800, ecx = 0x7ED8320B, edx = 0x178BFBFF },
        new() { function = 0x8000_0000, eax = 0x8000_001E },
        new() { function = 0x8000_0008, eax = 0x3030, ecx = 0x703F },
        new() { function = 0x8000_001D, index = 1, flags = Indexed, eax = 0x4121 | (1 << 14) },
        new() { function = 0x8000_001D, index = 3, flags = Indexed, eax = 0x4163 | (15 << 14) },
        new() { function = 0x8000_001E, eax = 5, ebx = 0x0102, ecx = 0x0300 },
    ];

    private static readonly kvm_cpuid_entry2[] Minimal = [new() { function = 0, eax = 1 }, new() { function = 1 }];

    public static TheoryData<string, int> Cases
    {
        get
        {
            var cases = new TheoryData<string, int>();
            foreach (string host in new[] { "Intel", "AMD", "minimal", "this host" })
            {
                foreach (int vcpus in new[] { 1, 2, 3, 8, 255 })
                    cases.Add(host, vcpus);
            }
            return cases;
        }
    }

    [SkippableTheory]
    [MemberData(nameof(Cases))]
    public void Topology_is_one_package_of_single_threaded_cores(string host, int vcpus)
    {
        var cpuid = new GuestCpuid(Supported(host), vcpus, tscDeadline: true);
        int bits = 0;
        while (1 << bits < vcpus)
            bits++;
        foreach (uint id in new[] { 0u, (uint)vcpus / 2, (uint)vcpus - 1 })
        {
            kvm_cpuid_entry2[] leaves = cpuid.For(id);
            Assert.Equal(leaves.Length, leaves.Select(l => (l.function, l.index)).Distinct().Count());
            Assert.True(One(leaves, 0).eax >= 0xB);
            kvm_cpuid_entry2 one = One(leaves, 1);
            Assert.Equal(id, one.ebx >> 24);
            Assert.InRange((int)(one.ebx >> 16 & 0xFF), Math.Min(vcpus, 255), Math.Min(1 << bits, 255));
            Assert.Equal(8u, one.ebx >> 8 & 0xFF);
            Assert.Equal(vcpus > 1, (one.edx >> 28 & 1) != 0);
            Assert.Equal(1u, one.ecx >> 31);
            Assert.Equal(1u, one.ecx >> 24 & 1);
            CheckTopologyLeaf(leaves, id, vcpus, bits);
            CheckCaches(leaves, vcpus, bits);
        }
    }

    [Fact]
    public void The_deadline_timer_is_offered_only_where_KVM_has_it()
    {
        Assert.Equal(0u, One(new GuestCpuid(Minimal, 1, tscDeadline: false).For(0), 1).ecx >> 24 & 1);
        Assert.True(HasTscDeadline(new GuestCpuid(Minimal, 1, tscDeadline: true)));
        Assert.False(HasTscDeadline(new GuestCpuid(Minimal, 1, tscDeadline: false)));
    }

    [Fact]
    public void Two_vcpus_get_leaves_of_their_own()
    {
        var cpuid = new GuestCpuid(Intel, 4, tscDeadline: true);
        kvm_cpuid_entry2[] first = cpuid.For(1);
        _ = cpuid.For(2);
        Assert.Equal(1u, One(first, 1).ebx >> 24);
    }

    [Theory]
    [InlineData(0x3934u, 52)]
    [InlineData(0x3030u, 48)]
    [InlineData(0x3000u, 36)]
    [InlineData(0x30FFu, 36)]
    public void Address_bits_are_believed_where_they_can_be(uint eax, int bits) =>
        Assert.Equal(bits, GuestCpuid.PhysicalAddressBits([new() { function = 0x8000_0008, eax = eax }]));

    [Fact]
    public void Address_bits_without_the_leaf_are_36() => Assert.Equal(36, GuestCpuid.PhysicalAddressBits(Minimal));

    [SkippableFact]
    public void KVM_takes_the_leaves_of_255_vcpus()
    {
        HostKvm.Needed();
        using KvmSystem kvm = KvmSystem.Open();
        Skip.If(kvm.MaxVcpus < 255, $"This KVM allows {kvm.MaxVcpus} vCPUs.");
        using KvmVm vm = kvm.CreateVm();
        vm.CreateIrqchip();
        var cpuid = new GuestCpuid(kvm.GetSupportedCpuid(), 255, tscDeadline: true);
        foreach (int id in new[] { 0, 1, 254 })
        {
            using KvmVcpu vcpu = vm.CreateVcpu(id);
            vcpu.SetCpuid(cpuid.For((uint)id));
        }
    }

    private static kvm_cpuid_entry2[] Supported(string host)
    {
        switch (host)
        {
            case "Intel":
                return Intel;
            case "AMD":
                return Amd;
            case "minimal":
                return Minimal;
            default:
                HostKvm.Needed();
                using (KvmSystem kvm = KvmSystem.Open())
                    return kvm.GetSupportedCpuid();
        }
    }

    /// <summary>Intel SDM vol. 2A, CPUID leaf 0BH: levels SMT and core, then an invalid one that ends the list.</summary>
    private static void CheckTopologyLeaf(kvm_cpuid_entry2[] leaves, uint id, int vcpus, int bits)
    {
        kvm_cpuid_entry2[] levels = [.. leaves.Where(l => l.function == 0xB).OrderBy(l => l.index)];
        Assert.Equal([(0u, 1u, 0x100u), ((uint)bits, (uint)vcpus, 0x201u), (0u, 0u, 2u)], levels.Select(l => (l.eax, l.ebx, l.ecx)));
        Assert.All(levels, l => Assert.Equal(id, l.edx));
        Assert.All(levels, l => Assert.Equal(Indexed, l.flags));
        Assert.DoesNotContain(leaves, l => l.function == 0x1F);
    }

    private static void CheckCaches(kvm_cpuid_entry2[] leaves, int vcpus, int bits)
    {
        foreach (kvm_cpuid_entry2 cache in leaves.Where(l => l.function is 4 or 0x8000_001D && (l.eax & 0x1F) != 0))
        {
            int level = (int)(cache.eax >> 5 & 7);
            int sharing = (int)(cache.eax >> 14 & 0xFFF) + 1;
            Assert.InRange(sharing, level >= 3 ? vcpus : 1, level >= 3 ? 1 << bits : 1);
            if (cache.function == 4)
                Assert.InRange((int)(cache.eax >> 26) + 1, Math.Min(vcpus, 64), Math.Min(1 << bits, 64));
        }
        foreach (kvm_cpuid_entry2 amd in leaves.Where(l => l.function == 0x8000_0008 && vcpus <= 255))
        {
            Assert.Equal((uint)vcpus - 1, amd.ecx & 0xFF);
            Assert.Equal((uint)bits, amd.ecx >> 12 & 0xF);
        }
        foreach (kvm_cpuid_entry2 core in leaves.Where(l => l.function == 0x8000_001E))
            Assert.Equal((One(leaves, 1).ebx >> 24, One(leaves, 1).ebx >> 24, 0u), (core.eax, core.ebx, core.ecx));
    }

    private static kvm_cpuid_entry2 One(kvm_cpuid_entry2[] leaves, uint function) => Assert.Single(leaves, l => l.function == function);

    private static bool HasTscDeadline(GuestCpuid cpuid) => Array.Exists(cpuid.For(0), leaf => leaf.function == 1 && (leaf.ecx >> 24 & 1) != 0);
}
