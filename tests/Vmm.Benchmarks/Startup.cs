using System.Globalization;

namespace Vmm.Benchmarks;

/// <summary>
/// CPU time from process start to the first KVM_RUN of a 128 MiB guest, told by a library that is preloaded into vmm and into the C
/// program alike. Goal: at most 8 ms with the NativeAOT binary, whose calls of ioctl the library can see.
/// </summary>
internal static class Startup
{
    private const int Rounds = 20;

    public static int Run(string vmm)
    {
        using var floor = new Floor();
        // mov dx, 0x604 (PM1a control); mov ax, SLP_EN | SLP_TYP 5; out dx, ax; hlt.
        byte[] code = [0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x34, 0x66, 0xEF, 0xF4, 0xEB, 0xFD];
        string kernel = floor.WriteKernel("off.elf", code);
        string state = floor.WriteState("off", code, user: false);
        string library = floor.Compile("firstrun", "-shared", "-fPIC");
        var ours = new List<double>();
        var theirs = new List<double>();
        for (int round = 0; round <= Rounds; round++)
        {
            double a = Milliseconds(library, vmm, "run", "--kernel", kernel, "--memory", "size=128M", "--serial", "null");
            double b = Milliseconds(library, floor.Program, "boot", state, "128");
            if (round == 0)
                continue;
            ours.Add(a);
            theirs.Add(b);
        }
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"CPU time, process start to the first KVM_RUN of a guest of 128 MiB, {Rounds} rounds: vmm {Floor.Median(ours):F2} ms (least {ours.Min():F2}), C {Floor.Median(theirs):F2} ms (least {theirs.Min():F2}) (goal 8 ms)"));
        return 0;
    }

    // The program prints nothing else, or only after that line.
    private static double Milliseconds(string library, string program, params string[] arguments)
    {
        string[] words = Floor.Output("/usr/bin/env", ["LD_PRELOAD=" + library, program, .. arguments]).Split('\n');
        if (!long.TryParse(words[0], CultureInfo.InvariantCulture, out long microseconds))
            throw new InvalidOperationException($"{program} did not come to its first KVM_RUN by the C library's ioctl: '{words[0]}'.");
        return microseconds / 1000.0;
    }
}
