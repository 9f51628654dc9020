using Iced.Intel;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Core.Tests.Kvm;
using Vmm.Core.Tests.Payloads;
using Vmm.Virtio.Devices.Pmem;
using Vmm.Virtio.SharedMemory;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>What a real vCPU sees of a window: mappings, holes, read-only and truncated files; in kernel code and in user code, which reach
/// memory in different ways on some hosts.</summary>
[Collection(nameof(KvmCollection))]
public sealed class WindowGuestTests : IDisposable
{
    private const ulong Page = TestFile.Page;
    private const ulong Place = 0x4000_0000;
    private const ulong Length = 64 * Page;
    private const ulong Step = 0xC000_0000;
    private const ulong Results = 0x11_0000;

    private readonly TestFile _file = new(16, 100);
    private readonly GuestFaults _faults = new();
    private TestMachine _machine = null!;
    private KvmMemorySlots _slots = null!;
    private SharedMemoryWindow _window = null!;

    public void Dispose()
    {
        _machine?.Dispose();
        _window?.Dispose();
        _file.Dispose();
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_guest_reads_and_writes_what_is_mapped_and_nothing_in_holes(bool user)
    {
        Start();
        Assert.Equal(0, Map(2, 4, 2));
        ulong[] seen = Run(user, _ => { }, a =>
        {
            Load(a, 0, Place + (4 * Page));
            Load(a, 1, Place + (5 * Page));
            Store(a, Place + (5 * Page), 0x2222);
            Load(a, 2, Place + (5 * Page));
            Load(a, 3, Place + (3 * Page));
            Store(a, Place + (6 * Page), 0x3333);
            Load(a, 4, Place + (6 * Page));
        });
        Assert.Equal([102, 103, 0x2222, ulong.MaxValue, ulong.MaxValue], seen[..5]);
        Assert.Equal(0x2222UL, _file.Get(3 * TestFile.Page));
        Assert.Equal((2L, 1L, 0L), (_window.Counters.HoleReads, _window.Counters.HoleWrites, _window.Counters.Truncations));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_guests_writes_to_a_read_only_mapping_are_dropped(bool user)
    {
        Start();
        Assert.Equal(0, _window.TryMap(_file.Fd, 0, 0, Page, false));
        ulong[] seen = Run(user, _ => { }, a =>
        {
            Load(a, 0, Place);
            Store(a, Place, 0x2222);
            Load(a, 1, Place);
        });
        Assert.Equal([100, 100], seen[..2]);
        Assert.Equal(100UL, _file.Get(0));
        Assert.Equal((1L, 0L, 0L), (_window.Counters.ReadOnlyWrites, _window.Counters.HoleWrites, _window.Counters.HoleReads));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_guest_reads_ones_where_a_file_was_truncated_and_goes_on(bool user)
    {
        Start();
        Assert.Equal(0, Map(0, 0, 8));
        ulong[] seen = Run(
            user,
            step =>
            {
                if (step == 0)
                    _file.SetLength(2 * TestFile.Page);
            },
            a =>
            {
                Load(a, 0, Place + (7 * Page));
                Next(a);
                Load(a, 1, Place + (7 * Page));
                Store(a, Place + (6 * Page), 0x2222);
                Load(a, 2, Place + (6 * Page));
                Load(a, 3, Place + Page);
                Store(a, Place + Page, 0x3333);
                Load(a, 4, Place + Page);
            });
        Assert.Equal([107, ulong.MaxValue, ulong.MaxValue, 101, 0x3333], seen[..5]);
        Assert.Equal((0x3333UL, 2L * TestFile.Page), (_file.Get(TestFile.Page), _file.Length));
        Assert.Empty(_machine.Ends);
        // Where KVM emulates the access (kernel code on some hosts), nothing fails and there is nothing to withdraw.
        Assert.InRange(_window.Counters.Truncations, user ? 1 : 0, 1);
        Assert.Equal((2L, 1L), (_window.Counters.HoleReads, _window.Counters.HoleWrites));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_page_in_the_middle_that_its_file_system_has_no_room_for_ends_no_machine(bool user)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-full").FullName;
        Skip.If(Shell($"mount -t tmpfs -o size=8k none {folder}") != 0, "A file system that is full takes root to mount.");
        try
        {
            Start();
            Assert.Equal(0, Map(0, 15, 1));
            string path = Path.Combine(folder, "file");
            // Its first and its last page take all the room there is.
            Assert.Equal(0, Shell($"truncate -s 32k {path} && printf AAAAAAAA | dd of={path} conv=notrunc status=none && printf BBBBBBBB | dd of={path} bs=4096 seek=7 conv=notrunc status=none"));
            using (FileStream file = File.Open(path, FileMode.Open, FileAccess.ReadWrite))
                Assert.Equal(0, _window.TryMap((int)file.SafeFileHandle.DangerousGetHandle(), 0, 0, 8 * Page, true));
            ulong[] seen = Run(user, _ => { }, a =>
            {
                Load(a, 0, Place);
                Load(a, 1, Place + (3 * Page));
                Store(a, Place + (4 * Page), 0x2222);
                Load(a, 2, Place + (7 * Page));
                Load(a, 3, Place + (15 * Page));
            });
            Assert.Equal([0x4141_4141_4141_4141, ulong.MaxValue, 0x4242_4242_4242_4242, 100], seen[..4]);
            Assert.Empty(_machine.Ends);
            _window.UnmapAll();
        }
        finally
        {
            Assert.Equal(0, Shell($"umount {folder} && rmdir {folder}"));
        }
    }

    private static int Shell(string line)
    {
        using var process = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("/bin/sh", ["-c", line]) { RedirectStandardError = true })!;
        process.WaitForExit();
        return process.ExitCode;
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_guest_reads_ones_where_the_file_of_persistent_memory_was_truncated(bool user)
    {
        HostKvm.Needed();
        string path = Path.GetTempFileName();
        try
        {
            using (FileStream file = File.OpenWrite(path))
                file.SetLength(3 << 20);
            using PmemFile pmem = PmemFile.Open(new PmemConfig(path));
            _machine = new TestMachine(faults: _faults);
            var slots = SlotsOf(_machine);
            var region = new PmemRegion(slots, pmem.Reservation, pmem.HostAddress, pmem.Length, pmem.FileLength, Place);
            _faults.Add(region);
            _machine.Mmio.Add(Place, region.Length, new PreferredPlace(region), "pmem");
            ulong[] seen = Run(
                user,
                _ =>
                {
                    using FileStream file = File.OpenWrite(path);
                    file.SetLength(1 << 20);
                },
                a =>
                {
                    Store(a, Place + (2 << 20), 0x1111);
                    Store(a, Place, 0x2222);
                    Load(a, 0, Place + (2 << 20));
                    Next(a);
                    Load(a, 1, Place + (2 << 20));
                    Load(a, 2, Place);
                    // Beyond the file there is memory without one.
                    Store(a, Place + (7 << 19), 0x3333);
                    Load(a, 3, Place + (7 << 19));
                });
            Assert.Equal([0x1111, ulong.MaxValue, 0x2222, 0x3333], seen[..4]);
            Assert.Empty(_machine.Ends);
            region.Remove();
        }
        finally
        {
            File.Delete(path);
        }
    }

    [SkippableFact]
    public void Memory_that_nobody_explains_ends_the_vcpu()
    {
        Start();
        // One window whose file is whole, and one that nobody watches.
        Assert.Equal(0, Map(0, 0, 1));
        using var other = new SharedMemoryWindow(1, Length, _slots, SharedMemoryQuota.ForMachine().ForDevice());
        Assert.Equal(0, other.TryMap(_file.Fd, 0, 0, 16 * Page, true));
        other.Place(Place + Length);
        _machine.LoadUser(Payload.Long(a =>
        {
            Load(a, 0, Place + Length + (12 * Page));
            Next(a);
            Load(a, 1, Place + Length + (12 * Page));
            a.DoneByMemory();
        }));
        _machine.Mmio.Add(Step, 8, new Steps(_ => _file.SetLength(4 * TestFile.Page)), "steps");
        VcpuEnd end = _machine.RunToEnd();
        Assert.Equal((VcpuEndReason.HostError, 14UL), (end.Reason, end.Code));
        Assert.Contains("KVM_RUN failed", end.Detail, StringComparison.Ordinal);
        Assert.True(_machine.Memory.TryRead(Results, out ulong seen));
        Assert.Equal(112UL, seen);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_is_unmapped_remapped_and_moved_while_the_guest_runs_is_what_it_sees(bool user)
    {
        Start();
        using var other = new TestFile(1, 900);
        Assert.Equal(0, Map(0, 0, 1));
        ulong[] seen = Run(
            user,
            step =>
            {
                switch (step)
                {
                    case 0:
                        Assert.Equal(0, _window.TryUnmap(0, Page));
                        break;
                    case 1:
                        Assert.Equal(0, _window.TryMap(other.Fd, 0, 0, Page, true));
                        break;
                    case 2:
                        _window.Place(null);
                        Assert.True(_machine.Mmio.Remove(Place));
                        _machine.Mmio.Add(2 * Place, Length, _window.Behind, "window");
                        _window.Place(2 * Place);
                        break;
                    case 3:
                        _window.UnmapAll();
                        break;
                }
            },
            a =>
            {
                Load(a, 0, Place);
                Next(a);
                Load(a, 1, Place);
                Next(a);
                Load(a, 2, Place);
                Next(a);
                Load(a, 3, Place);
                Load(a, 4, 2 * Place);
                Next(a);
                Load(a, 5, 2 * Place);
            });
        Assert.Equal([100, ulong.MaxValue, 900, ulong.MaxValue, 900, ulong.MaxValue], seen[..6]);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_guest_that_reads_all_the_time_survives_a_back_end_that_maps_unmaps_and_truncates(bool user)
    {
        Start();
        using var other = new TestFile(8, 100);
        Assert.Equal(0, _window.TryMap(other.Fd, 0, 32 * Page, 8 * Page, true));
        _machine.Mmio.Add(Step, 8, new Steps(_ => { }), "steps");
        byte[] code = Payload.Long(a =>
        {
            Label again = a.CreateLabel(), wrong = a.CreateLabel(), next = a.CreateLabel();
            a.mov(r8, 0UL);
            a.Label(ref again);
            // Anywhere in the first 8 pages, which come and go, and in those which are truncated all the time.
            a.inc(r8);
            a.mov(rax, r8);
            a.and(rax, 7);
            a.shl(rax, 12);
            a.mov(rbx, Place);
            a.add(rbx, rax);
            a.mov(rcx, __qword_ptr[rbx + (int)(32 * Page)]);
            a.mov(rcx, __qword_ptr[rbx]);
            a.cmp(rcx, -1);
            a.je(next);
            a.sub(rcx, 100);
            a.shl(rcx, 12);
            a.cmp(rcx, rax);
            a.jne(wrong);
            a.Label(ref next);
            a.mov(rsi, Results);
            a.mov(__qword_ptr[rsi], r8);
            a.jmp(again);
            a.Label(ref wrong);
            a.DoneByMemory(1);
        });
        if (user)
            _machine.LoadUser(code);
        else
            _machine.Load(code);
        _machine.Boot.Start();
        ulong before = Progress();
        for (int i = 0; i < 400; i++)
        {
            Assert.Equal(0, Map(0, 0, 8));
            other.SetLength(i % 3 * TestFile.Page);
            Thread.SpinWait(i * 50);
            other.SetLength(8 * TestFile.Page);
            Assert.Equal(0, _window.TryUnmap(0, 8 * Page));
            if (i % 50 == 0)
            {
                Assert.Equal(0, _window.TryUnmap(32 * Page, 8 * Page));
                Assert.Equal(0, _window.TryMap(other.Fd, 0, 32 * Page, 8 * Page, true));
            }
        }
        Assert.True(SpinWait.SpinUntil(() => Progress() > before + 100, TestMachine.Watchdog), "The guest stands still.");
        Assert.Empty(_machine.Ends);
        Assert.False(_machine.Done.IsSet, "The guest read something else than what was mapped or ones.");

        ulong Progress()
        {
            Assert.True(_machine.Memory.TryRead(Results, out ulong count));
            return count;
        }
    }

    [SkippableFact]
    public void Twenty_thousand_mappings_live_at_a_time()
    {
        const int count = 20_000;
        HostKvm.Needed();
        _machine = new TestMachine(faults: _faults);
        SharedMemoryQuota quota = SharedMemoryQuota.ForMachine();
        Skip.If(quota.Limit < count, $"vm.max_map_count of this host allows only {quota.Limit} mappings.");
        SharedMemoryQuota device = quota.ForDevice(count);
        KvmMemorySlots slots = SlotsOf(_machine);
        Skip.If(_machine.Vm.CheckExtension(Core.Interop.LibC.KVM_CAP_NR_MEMSLOTS) < count + 1, "This KVM has not so many memory slots.");
        _window = new SharedMemoryWindow(0, (2 * count + 1) * Page, slots, device);
        _machine.Mmio.Add(Place, _window.Length, _window.Behind, "window");
        _faults.Add(_window);
        _window.Place(Place);
        for (int i = 0; i < count; i++)
            Assert.Equal(0, _window.TryMap(_file.Fd, (ulong)(i % 16) * Page, ((ulong)i * 2 + 1) * Page, Page, true));
        Assert.Equal(Core.Interop.LibC.ENOSPC, _window.TryMap(_file.Fd, 0, 0, Page, true));
        Assert.Equal((count, count, count + 1), (_window.Count, quota.Taken, slots.Slots.Count));
        Assert.Equal(count, HostMap.CountOf(_file));
        ulong[] seen = Run(true, _ => { }, a =>
        {
            Load(a, 0, Place + Page);
            Load(a, 1, Place + ((2 * (count - 1) + 1) * Page));
            Load(a, 2, Place + (20_000 * Page));
            Load(a, 3, Place + (20_001 * Page));
        });
        Assert.Equal([100, 100 + ((count - 1) % 16), ulong.MaxValue, 100 + (10_000 % 16)], seen[..4]);
        Assert.Equal(GuestFaultAnswer.Unexplained, _window.Resolve());
        _file.SetLength(8 * TestFile.Page);
        Assert.Equal(GuestFaultAnswer.Resolved, _window.Resolve());
        Assert.Equal(count / 2, _window.Counters.Truncations);
        Assert.Equal((count / 2) + 1, slots.Slots.Count);
        _window.UnmapAll();
        Assert.Equal((0, 0, 1, 0), (_window.Count, quota.Taken, slots.Slots.Count, HostMap.CountOf(_file)));
    }

    private static KvmMemorySlots SlotsOf(TestMachine machine)
    {
        var slots = new KvmMemorySlots(machine.Vm);
        // Number 0 is the test machine's RAM, which it mapped by itself.
        Assert.Equal(0, slots.Map(0, TestMachine.RamSize, machine.Memory.Regions[0].HostAddress));
        return slots;
    }

    private static void Load(Assembler a, int result, ulong address)
    {
        a.mov(rbx, address);
        a.mov(rax, __qword_ptr[rbx]);
        a.mov(rsi, Results + ((ulong)result * 8));
        a.mov(__qword_ptr[rsi], rax);
    }

    private static void Store(Assembler a, ulong address, ulong value)
    {
        a.mov(rbx, address);
        a.mov(rax, value);
        a.mov(__qword_ptr[rbx], rax);
    }

    private static void Next(Assembler a)
    {
        a.mov(rbx, Step);
        a.mov(__dword_ptr[rbx], eax);
    }

    private void Start()
    {
        HostKvm.Needed();
        _machine = new TestMachine(faults: _faults);
        _slots = SlotsOf(_machine);
        _window = new SharedMemoryWindow(0, Length, _slots, SharedMemoryQuota.ForMachine().ForDevice());
        _machine.Mmio.Add(Place, Length, _window.Behind, "window");
        _faults.Add(_window);
        _window.Place(Place);
    }

    private int Map(ulong filePage, ulong page, ulong pages) => _window.TryMap(_file.Fd, filePage * Page, page * Page, pages * Page, true);

    private ulong[] Run(bool user, Action<int> step, Action<Assembler> code)
    {
        _machine.Mmio.Add(Step, 8, new Steps(step), "steps");
        byte[] whole = Payload.Long(a =>
        {
            code(a);
            a.DoneByMemory();
        });
        if (user)
            _machine.LoadUser(whole);
        else
            _machine.Load(whole);
        _machine.Run();
        ulong[] seen = new ulong[8];
        for (int i = 0; i < seen.Length; i++)
            Assert.True(_machine.Memory.TryRead(Results + ((ulong)i * 8), out seen[i]));
        return seen;
    }

    private sealed class Steps(Action<int> step) : IBusDevice
    {
        private int _count;

        public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

        public void Write(ulong offset, ReadOnlySpan<byte> data) => step(_count++);
    }
}
