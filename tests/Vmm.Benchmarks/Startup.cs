using System.Diagnostics;
using System.Globalization;
using Vmm.Core.Interop;

namespace Vmm.Benchmarks;

/// <summary>
/// CPU time from process start to the first instruction of a 128 MiB guest, whose first instructions power it off: so the whole
/// run is the start, the first KVM_RUN and the end. Goal: at most 8 ms with the NativeAOT binary.
/// </summary>
internal static unsafe class Startup
{
    private const int Rounds = 20;

    public static int Run(string vmm)
    {
        using var floor = new Floor();
        // mov dx, 0x604 (PM1a control); mov ax, SLP_EN | SLP_TYP 5; out dx, ax; hlt.
        byte[] code = [0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x34, 0x66, 0xEF, 0xF4, 0xEB, 0xFD];
        string kernel = floor.WriteKernel("off.elf", code);
        string state = floor.WriteState("off", code, user: false);
        var ours = new List<double>();
        var theirs = new List<double>();
        for (int round = 0; round <= Rounds; round++)
        {
            double a = CpuMilliseconds(vmm, "run", "--kernel", kernel, "--memory", "size=128M", "--serial", "null");
            double b = CpuMilliseconds(floor.Program, "boot", state, "128");
            if (round == 0)
                continue;
            ours.Add(a);
            theirs.Add(b);
        }
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"CPU time, process start to a guest of 128 MiB that powers off at once, {Rounds} rounds: vmm {Floor.Median(ours):F2} ms (least {ours.Min():F2}), C {Floor.Median(theirs):F2} ms (least {theirs.Min():F2}) (goal 8 ms)"));
        return 0;
    }

    private static double CpuMilliseconds(string program, params string[] arguments)
    {
        double before = ChildrenMilliseconds();
        _ = Floor.Output(program, arguments);
        return ChildrenMilliseconds() - before;
    }

    // Children that were waited for; one runs at a time.
    private static double ChildrenMilliseconds()
    {
        rusage usage;
        if (LibC.getrusage(LibC.RUSAGE_CHILDREN, &usage) < 0)
            throw new InvalidOperationException("getrusage failed.");
        return ((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000.0) + ((usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000.0);
    }
}
