using System.Text;

namespace Vmm.Boot.Tests.Virtio;

/// <summary>A disk of a guest.</summary>
/// <param name="Path">File or block device, where the guest runs.</param>
/// <param name="Queues">Request queues.</param>
/// <param name="Serial">What the guest reads as its serial number.</param>
public readonly record struct GuestDisk(string Path, int Queues = 1, string? Serial = null);

/// <summary>A guest with virtio devices, as the options of vmm or, to prove the tests themselves, of QEMU.</summary>
public sealed record GuestMachine(string Image, string Bus, bool Packed)
{
    /// <summary>The host's address on the tap.</summary>
    public const string HostAddress = "192.168.77.1";

    /// <summary>Processors.</summary>
    public int Cpus { get; init; } = 1;

    /// <summary>RAM in MiB.</summary>
    public int Megabytes { get; init; } = 512;

    /// <summary>MiB that virtio-mem may add; 0 for no such device.</summary>
    public int Hotplug { get; init; }

    /// <summary>MiB that it has added at the start; null for all.</summary>
    public int? Plugged { get; init; }

    /// <summary>Disks; the first is the root.</summary>
    public IReadOnlyList<GuestDisk> Disks { get; init; } = [];

    /// <summary>The tap's name; null for no network.</summary>
    public string? Tap { get; init; }

    /// <summary>Whether there is a source of random numbers.</summary>
    public bool Rng { get; init; }

    /// <summary>MiB that the balloon takes; null for no balloon.</summary>
    public int? Balloon { get; init; }

    /// <summary>Whether the balloon gives back what the guest needs.</summary>
    public bool DeflateOnOom { get; init; }

    /// <summary>Whether the balloon tells of memory that the guest freed.</summary>
    public bool FreePageReporting { get; init; }

    /// <summary>A file that is persistent memory; null for none.</summary>
    public string? Pmem { get; init; }

    /// <summary>Whether there is a watchdog that resets.</summary>
    public bool Watchdog { get; init; }

    /// <summary>Threads that serve the devices.</summary>
    public int IoThreads { get; init; } = 1;

    /// <summary>Where its root is, as the kernel's command line says it.</summary>
    public string Root { get; init; } = "root=/dev/vda";

    /// <summary>Where its script speaks: hvc0, or ttyS0 where the driver of the other is to leave.</summary>
    public string Console { get; init; } = "hvc0";

    /// <summary>More words for the kernel.</summary>
    public string Words { get; init; } = "";

    /// <summary>More options of vmm, as those of devices with external back-ends; QEMU has none of them.</summary>
    public IReadOnlyList<string> Options { get; init; } = [];

    /// <summary>What the guest runs.</summary>
    public string Script { get; init; } = "true";

    private string CommandLine =>
        $"console=ttyS0 quiet panic=-1 {Root} {Words} vmm.console={Console} vmm.end=poweroff vmm.run64="
        + Convert.ToBase64String(Encoding.UTF8.GetBytes(Script));

    /// <summary>The options of <c>vmm run</c>.</summary>
    public IEnumerable<string> ForVmm(string kernel, string initramfs)
    {
        string ring = Packed ? ",packed=on" : ",packed=off";
        List<string> words =
        [
            "--kernel", kernel, "--initramfs", initramfs, "--cmdline", CommandLine, "--cpus", $"boot={Cpus}", "--bus", Bus,
            "--memory", Hotplug > 0 ? $"size={Megabytes}M,hotplug_size={Hotplug}M,hotplugged_size={Plugged ?? Hotplug}M" : $"size={Megabytes}M",
            "--serial", Console == "ttyS0" ? "tty" : "null", "--console", Console == "ttyS0" ? "null" : "tty", "--io-threads", $"count={IoThreads}",
        ];
        foreach (GuestDisk disk in Disks)
            words.AddRange(["--disk", $"path={disk.Path},num_queues={disk.Queues}{(disk.Serial is { } serial ? $",serial={serial}" : "")}{ring}"]);
        if (Tap is { } tap)
            words.AddRange(["--net", $"tap={tap},ip={HostAddress},mask=255.255.255.0,mac=12:34:56:78:9a:bc{ring}"]);
        if (Rng)
            words.AddRange(["--rng", $"src=/dev/urandom{ring}"]);
        if (Balloon is { } balloon)
            words.AddRange(["--balloon", $"size={balloon}M,deflate_on_oom={OnOff(DeflateOnOom)},free_page_reporting={OnOff(FreePageReporting)}{ring}"]);
        if (Pmem is { } pmem)
            words.AddRange(["--pmem", $"file={pmem}{ring}"]);
        if (Watchdog)
            words.AddRange(["--watchdog", "reset"]);
        words.AddRange(Options);
        return words;
    }

    /// <summary>The program and arguments of a QEMU with the same devices. Only on PCI: its microvm's ACPI tables and a distribution's initramfs overlap.</summary>
    public IEnumerable<string> ForQemu(string kernel, string initramfs)
    {
        string ring = ",packed=" + OnOff(Packed);
        string most = Hotplug > 0 || Pmem != null ? $",maxmem={Megabytes + Hotplug + 4096}M,slots=2" : "";
        List<string> words =
        [
            "qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host,-x2apic", "-m", $"{Megabytes}M{most}", "-smp", $"{Cpus}", "-display", "none", "-no-reboot",
            "-nodefaults", "-serial", "null", "-kernel", kernel, "-initrd", initramfs, "-append", CommandLine,
            "-chardev", "stdio,id=console,signal=off", "-device", "virtio-serial-pci" + ring, "-device", "virtconsole,chardev=console",
        ];
        for (int i = 0; i < Disks.Count; i++)
        {
            words.AddRange(
            [
                "-drive", $"id=disk{i},if=none,format=raw,discard=unmap,file={Disks[i].Path}",
                "-device", $"virtio-blk-pci,drive=disk{i},num-queues={Disks[i].Queues}{(Disks[i].Serial is { } serial ? $",serial={serial}" : "")}{ring}",
            ]);
        }
        if (Tap is { } tap)
            words.AddRange(["-netdev", $"tap,id=net,ifname={tap},script=no,downscript=no", "-device", "virtio-net-pci,netdev=net,mac=12:34:56:78:9a:bc" + ring]);
        if (Rng)
            words.AddRange(["-device", "virtio-rng-pci" + ring]);
        if (Balloon is { } balloon)
            words.AddRange(["-device", $"virtio-balloon-pci,deflate-on-oom={OnOff(DeflateOnOom)},free-page-reporting={OnOff(FreePageReporting)}{ring}"]);
        if (Pmem is { } pmem)
            words.AddRange(["-object", $"memory-backend-file,id=pmem,share=on,mem-path={pmem},size=128M", "-device", "virtio-pmem-pci,memdev=pmem" + ring]);
        if (Hotplug > 0)
            words.AddRange(["-object", $"memory-backend-ram,id=hotplug,size={Hotplug}M,reserve=off", "-device", $"virtio-mem-pci,memdev=hotplug,requested-size={Plugged ?? Hotplug}M{ring}"]);
        if (Watchdog)
            words.AddRange(["-device", "i6300esb", "-action", "watchdog=reset"]);
        return words;
    }

    private static string OnOff(bool value) => value ? "on" : "off";
}
