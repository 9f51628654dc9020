using System.Globalization;
using System.Text;
using Vmm.Sandbox;

namespace Vmm.Benchmarks;

/// <summary>
/// Block and network throughput, and the VMM's own processor time for each operation: vmm against QEMU's microvm, with the same kernel, the
/// same root and the same files behind the disks, in turn in one sandbox. Goal: at least QEMU's throughput with at most its time, in every row.
/// </summary>
internal static class Virtio
{
    private const string Image = "debian-13-disk";
    private const string Scratch = "/bench";

    // A boot takes as long as some runs.
    private const int InABoot = 3;
    private const int Attempts = 4;

    // Minutes where nothing else runs.
    private static readonly TimeSpan s_boot = TimeSpan.FromMinutes(8);

    private static readonly string[] s_rows = ["block-random-4k", "block-sequential-1M", "net-send", "net-receive"];

    private readonly record struct Sample(double Rate, double CpuMicroseconds, double VmmMicroseconds);

    /// <summary>Runs the rounds.</summary>
    /// <param name="vmm">The binary.</param>
    /// <param name="rounds">Boots of each VMM, in turn; each runs everything three times.</param>
    /// <param name="countInstructions">Whether a nanosecond is an instruction, so that the results repeat; else the clock's.</param>
    public static async Task<int> RunAsync(string vmm, int rounds, bool countInstructions)
    {
        string image = await SandboxImage.BuildGuestAsync(Image);
        await using Sandbox.Sandbox sandbox = await Sandbox.Sandbox.StartAsync(new SandboxOptions
        {
            Flavour = SandboxFlavour.Debian,
            Cpus = 1,
            CountInstructions = countInstructions,
            Drives = [new SandboxDrive(Path.Combine(image, "root.ext4"), "root")],
        });
        await sandbox.CopyInAsync(vmm, "/vmm");
        await sandbox.CopyInAsync(Path.Combine(image, "vmlinuz"), "/vmlinuz");
        await sandbox.CopyInAsync(Path.Combine(image, "initramfs.cpio.gz"), "/image.cpio.gz");
        await sandbox.CopyInAsync(Path.Combine(SandboxImage.RepositoryDirectory, "tests/Vmm.Boot.Tests/Virtio/scripts"), "/scripts");
        // A guest's processor that waits must not keep the only real one busy; and it would wait on PAUSE, of which see below.
        (await sandbox.RunAsync(
            $"echo 0 > /sys/module/kvm/parameters/halt_poll_ns && mkdir {Scratch} && mount -t tmpfs -o size=1G bench {Scratch} && dd if=/dev/urandom of={Scratch}/disk bs=1M count=256 status=none"
            + " && mkdir /x && cp -r /scripts/guest /x/vmm && cd /x && find vmm | busybox cpio -o -H newc > /initramfs && cat /image.cpio.gz >> /initramfs"
            + " && ip tuntap add vmmbench mode tap && ip addr add 192.168.77.1/24 dev vmmbench && ip link set vmmbench up && iperf3 -s -D",
            TimeSpan.FromMinutes(3))).EnsureSuccess();

        string script = Convert.ToBase64String(Encoding.ASCII.GetBytes(
            countInstructions ? $"seconds=1 rounds={InABoot} sh /run/vmm/bench.sh" : $"seconds=4 rounds={InABoot} sh /run/vmm/bench.sh"));
        // Not hvc0: its driver spins on PAUSE until a line is taken, at which TCG leaves its loop, so that counted time hardly goes on.
        string append = $"console=ttyS0 quiet panic=-1 root=/dev/vda ro vmm.end=poweroff vmm.run64={script}";
        // 3 GiB, of which little is touched: with less, QEMU's microvm puts its ACPI tables where it puts the initramfs.
        string[] commands =
        [
            $"/vmm run --kernel /vmlinuz --initramfs /initramfs --cmdline '{append}' --cpus boot=1 --memory size=3072M --bus mmio --serial tty"
            + $" --disk path=/dev/drive/root,readonly=on --disk path={Scratch}/disk,direct=on --net tap=vmmbench,mac=12:34:56:78:9a:bc",
            "qemu-system-x86_64 -M microvm,acpi=on,rtc=on,isa-serial=on -accel kvm -cpu host,-x2apic -m 3072 -display none -no-reboot -nodefaults"
            + $" -serial chardev:console -kernel /vmlinuz -initrd /initramfs -append '{append}' -object iothread,id=io"
            + " -chardev stdio,id=console,signal=off"
            + " -drive id=root,if=none,format=raw,readonly=on,file=/dev/drive/root -device virtio-blk-device,drive=root"
            + $" -drive id=disk,if=none,format=raw,cache=none,aio=io_uring,file={Scratch}/disk -device virtio-blk-device,drive=disk,iothread=io"
            + " -netdev tap,id=net,ifname=vmmbench,script=no,downscript=no -device virtio-net-device,netdev=net,mac=12:34:56:78:9a:bc",
        ];
        string[] names = ["vmm", "QEMU microvm"];
        var samples = new Dictionary<string, List<Sample>>[] { [], [] };
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < commands.Length; i++)
            {
                // QEMU's emulation of nested guests at times lets an interrupt into a guest's interrupt handler, which then waits for itself
                // for ever, whichever VMM it is under. What was measured until then counts, and the boot is done again.
                for (int attempt = 0; ; attempt++)
                {
                    Console.Error.WriteLine($"round {round + 1} of {rounds}: {names[i]}");
                    CommandResult result = await sandbox.RunAsync(
                        $"exec sh /scripts/drive.sh {commands[i]}", new CommandOptions { Timeout = s_boot, OnOutput = Progress });
                    Read(result.Output, samples[i]);
                    if (result.Output.Contains(" end ok", StringComparison.Ordinal))
                        break;
                    if (!result.TimedOut || attempt == Attempts - 1)
                        throw new InvalidOperationException($"{names[i]}: {(result.TimedOut ? "took too long" : "did not come to the end")}:\n{result.Output}{result.Error}");
                    Console.Error.WriteLine("It stands still; again.");
                    (await sandbox.RunAsync("pkill -9 vmm; pkill -9 qemu-system; while pidof vmm qemu-system-x86_64; do sleep 0.2; done; true", TimeSpan.FromMinutes(1))).EnsureSuccess();
                }
            }
        }
        Print(names, samples);
        return 0;
    }

    /// <summary>What a guest says, as it says it: a round takes minutes.</summary>
    private static void Progress(bool isError, ReadOnlySpan<byte> data)
    {
        _ = isError;
        using Stream error = Console.OpenStandardError();
        error.Write(data);
    }

    private static void Read(string output, Dictionary<string, List<Sample>> samples)
    {
        foreach (string line in output.Split('\n').Where(line => line.StartsWith("VMM-BENCH ", StringComparison.Ordinal)))
        {
            string[] words = line.TrimEnd().Split(' ');
            double Number(int index) => double.Parse(words[index], CultureInfo.InvariantCulture);
            if (!samples.TryGetValue(words[1], out List<Sample>? list))
                samples[words[1]] = list = [];
            double operations = Number(3);
            // A tick is 10 ms.
            list.Add(new Sample(Number(2), Number(4) / 1000 / operations, (Number(4) - (Number(5) * 10_000_000)) / 1000 / operations));
        }
    }

    private static void Print(string[] names, Dictionary<string, List<Sample>>[] samples)
    {
        Console.WriteLine("                                    operations/s    CPU us/operation    of it outside the guest");
        foreach (string row in s_rows)
        {
            var medians = new Sample[names.Length];
            for (int i = 0; i < names.Length; i++)
            {
                List<Sample> list = samples[i][row];
                medians[i] = new Sample(
                    Floor.Median([.. list.Select(s => s.Rate)]), Floor.Median([.. list.Select(s => s.CpuMicroseconds)]), Floor.Median([.. list.Select(s => s.VmmMicroseconds)]));
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"{row,-20} {names[i],-13} {medians[i].Rate,14:F1} {medians[i].CpuMicroseconds,19:F1} {medians[i].VmmMicroseconds,26:F1}"));
            }
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{row,-20} {"vmm to QEMU",-13} {medians[0].Rate / medians[1].Rate,14:F2} {medians[0].CpuMicroseconds / medians[1].CpuMicroseconds,19:F2} {medians[0].VmmMicroseconds / medians[1].VmmMicroseconds,26:F2}   (goals: at least 1, at most 1)"));
        }
    }
}
