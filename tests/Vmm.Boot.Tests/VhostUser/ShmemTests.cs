using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>Memory that back-ends share with guests (vhost-user's SHMEM_MAP, VIRTIO 1.3 §2.10), with stock Linux guests on both buses.</summary>
[Collection(BootCollection.Name)]
public sealed class ShmemTests(BootHost host, ITestOutputHelper log)
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(VirtioHost.Full ? 30 : 5);

    public static TheoryData<string, string> Rows(int first)
    {
        (string, string)[] all = [("debian-12", "pci"), ("debian-13", "mmio"), ("debian-13", "pci"), ("debian-12", "mmio")];
        var rows = new TheoryData<string, string>();
        // Two rows have both kernels and both buses.
        for (int i = 0; i < all.Length; i++)
        {
            if (VirtioHost.AllRows || i / 2 == first)
                rows.Add(all[i].Item1, all[i].Item2);
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows), 1)]
    public async Task A_file_system_is_mapped_into_its_guest_through_a_window_smaller_than_its_files(string image, string bus)
    {
        ShmemRun run = await new ShmemGuest(image, bus, "dax")
        {
            Prepare = "mkdir share",
            BackEnd = "--device=fs --dir=share --tag=t --window=8M",
            Devices = ["--fs", "tag=t,socket=socket"],
            Environment = VirtioHost.Full ? "files=8 megabytes=256 rounds=20000" : "files=8 megabytes=32 rounds=150",
        }.Run(host, log, s_limit);
        Assert.Equal("ok none", run.Violations);
        Assert.InRange(run.Counters["shm0_maps"], 32, long.MaxValue);
        Assert.Equal(run.Counters["shm0_maps"], run.Counters["shm0_unmaps"]);
        Assert.Equal(0, run.Counters["shm0_refused"]);
        Assert.Equal(0, run.Counters["shm0_mappings"]);
        Assert.Equal(1, run.Counters["shm0_truncations"]);
    }

    [SkippableTheory]
    [MemberData(nameof(Rows), 0)]
    public async Task A_program_of_the_guest_sees_what_a_back_end_maps_and_survives_what_it_takes_away(string image, string bus)
    {
        ShmemRun run = await Resource(image, bus, "kill=0");
        Assert.Equal("ok none", run.Violations);
        // Of region 3 and region 0.
        Assert.InRange(run.Counters["shm3_truncations"], 1, long.MaxValue);
        Assert.InRange(run.Counters["shm3_read_only_writes"], 2, long.MaxValue);
        Assert.InRange(run.Counters["shm3_hole_reads"], 32, long.MaxValue);
        Assert.InRange(run.Counters["shm3_hole_writes"], 2, long.MaxValue);
    }

    [SkippableTheory]
    [MemberData(nameof(Rows), 1)]
    public async Task A_guest_outlives_its_back_end_and_what_that_had_mapped(string image, string bus)
    {
        ShmemRun run = await Resource(image, bus, "kill=1");
        Assert.Equal(0, run.Counters["shm3_mappings"]);
        Assert.Contains("vu0: stopped until its driver resets it", run.Output, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [MemberData(nameof(Rows), 0)]
    public async Task Thousands_of_mappings_come_and_go(string image, string bus)
    {
        Skip.If(!VirtioHost.AllRows && bus == "mmio", "one bus is enough where time is short");
        // KVM waits for each change of a memory slot to be seen: in the sandbox that is up to 10 ms for each mapping.
        int pages = VirtioHost.Full ? 20480 : 1024;
        ShmemRun run = await new ShmemGuest(image, bus, "many")
        {
            BackEnd = "--device=shmem --region=0:80M",
            Devices = ["--vhost-user", "type=rng,socket=socket,shmem_mappings=20480"],
            Environment = $"pages={pages} step={(VirtioHost.Full ? 1 : 7)}",
        }.Run(host, log, s_limit);
        Assert.Equal("ok none", run.Violations);
        Assert.InRange(run.Counters["shm0_maps"], 2 * pages, long.MaxValue);
        Assert.Equal(0, run.Counters["shm0_mappings"]);
    }

    [SkippableTheory]
    [MemberData(nameof(Rows), 1)]
    public async Task Persistent_memory_is_found_by_its_region(string image, string bus)
    {
        // Linux 6.9 is the first that uses the region; before, the driver takes the addresses of the configuration space.
        await new ShmemGuest(image, bus, "pmem")
        {
            Prepare = "truncate -s 64M pmem.img",
            Devices = ["--pmem", "file=pmem.img"],
            Environment = $"region={(image == "debian-13" ? 1 : 0)} pmem=pmem.img",
        }.Run(host, log, s_limit);
    }

    private Task<ShmemRun> Resource(string image, string bus, string environment) => new ShmemGuest(image, bus, "resource")
    {
        BackEnd = "--device=shmem --region=0:256K --region=3:1M",
        Devices = ["--vhost-user", "type=rng,socket=socket"],
        Environment = environment,
    }.Run(host, log, s_limit);
}
