using System.Globalization;
using Vmm.Sandbox;

namespace Vmm.Benchmarks;

/// <summary>
/// From process start to a guest's init, in the sandbox that counts instructions: vmm against QEMU's microvm (<c>boot</c>), and a
/// distribution's bzImage unpacked by the host against one that unpacks itself (<c>unpack</c>). One virtual nanosecond is one
/// instruction, so results repeat to a few per cent whatever else the host does; caches and the price of an exit are left out.
/// </summary>
internal static class Boot
{
    private const string Marker = "VMM-INIT";
    private const string Append = "console=ttyS0 panic=-1 reboot=t quiet";
    private static readonly CommandOptions Patient = new() { Timeout = TimeSpan.FromMinutes(5) };

    /// <summary>vmm with ACPI, without, and QEMU, in turn. Goal: at most 0.66 of QEMU's time.</summary>
    public static async Task<int> RunAsync(string vmm, int rounds)
    {
        await using Sandbox.Sandbox sandbox = await PrepareAsync(vmm, "small-6.1", "vmlinux", SandboxFlavour.Debian);
        string ours = $"/vmm run --kernel /vmlinux --initramfs /initramfs --cpus boot=1 --memory size=128M --cmdline '{Append}'";
        string qemu = "qemu-system-x86_64 -M microvm,acpi=off,x-option-roms=off,rtc=on,pit=off,pic=off,isa-serial=on -accel kvm -cpu host,-x2apic"
            + $" -m 128 -display none -no-reboot -nodefaults -serial stdio -kernel /vmlinux -initrd /initramfs -append '{Append}'";
        double[][] times = await InTurnAsync(sandbox, rounds, ours, ours + " --acpi off", qemu);
        Print("vmm", times[0]);
        Print("vmm --acpi off", times[1]);
        Print("QEMU microvm", times[2]);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"vmm to QEMU: {Floor.Median(times[0]) / Floor.Median(times[2]):F3} (goal 0.66), without ACPI {Floor.Median(times[1]) / Floor.Median(times[2]):F3}"));
        return 0;
    }

    /// <summary>Stock kernels' bzImages, booted both ways.</summary>
    public static async Task<int> RunUnpackAsync(string vmm, int rounds, string[] guests)
    {
        foreach (string guest in guests)
        {
            // Debian's root for its liblz4 and libzstd, which vmm unpacks with.
            await using Sandbox.Sandbox sandbox = await PrepareAsync(vmm, guest, "vmlinuz", SandboxFlavour.Debian);
            string run = $"/vmm run --kernel /vmlinuz --initramfs /initramfs --cpus boot=1 --memory size=256M --cmdline '{Append}'";
            double[][] times = await InTurnAsync(sandbox, rounds, run + " --boot protocol=bzimage", run + " --boot protocol=unpacked");
            Print($"{guest}, unpacks itself", times[0]);
            Print($"{guest}, unpacked by vmm", times[1]);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{guest}: unpacked by vmm to by itself {Floor.Median(times[1]) / Floor.Median(times[0]):F3}"));
        }
        return 0;
    }

    private static async Task<Sandbox.Sandbox> PrepareAsync(string vmm, string guest, string kernel, SandboxFlavour flavour)
    {
        string image = await SandboxImage.BuildGuestAsync(guest);
        Sandbox.Sandbox sandbox = await Sandbox.Sandbox.StartAsync(new SandboxOptions { Flavour = flavour, CountInstructions = true });
        try
        {
            using var floor = new Floor();
            await sandbox.CopyInAsync(floor.Compile("stopwatch", "-static"), "/stopwatch");
            await sandbox.CopyInAsync(vmm, "/vmm");
            await sandbox.CopyInAsync(Path.Combine(image, kernel), "/" + kernel);
            await sandbox.CopyInAsync(Path.Combine(image, "initramfs-tiny.cpio.gz"), "/initramfs");
            return sandbox;
        }
        catch
        {
            await sandbox.DisposeAsync();
            throw;
        }
    }

    /// <summary>Runs the commands in turn, once to warm up and then some rounds: milliseconds to the marker, of each.</summary>
    private static async Task<double[][]> InTurnAsync(Sandbox.Sandbox sandbox, int rounds, params string[] commands)
    {
        var times = new double[commands.Length][];
        for (int i = 0; i < commands.Length; i++)
            times[i] = new double[rounds];
        for (int round = -1; round < rounds; round++)
        {
            for (int i = 0; i < commands.Length; i++)
            {
                CommandResult result = await sandbox.RunAsync($"/stopwatch {Marker} {commands[i]}", Patient);
                if (result.ExitCode != 0 || result.TimedOut)
                    throw new InvalidOperationException($"{commands[i]}: {(result.TimedOut ? "took too long" : result.Error)}");
                if (round >= 0)
                    times[i][round] = double.Parse(result.Output.Split(' ')[0], CultureInfo.InvariantCulture);
            }
        }
        return times;
    }

    private static void Print(string name, double[] times) => Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
        $"{name}, process start to init: median {Floor.Median(times):F1} ms of instructions ({string.Join(", ", times.Select(t => t.ToString("F1", CultureInfo.InvariantCulture)))})"));
}
