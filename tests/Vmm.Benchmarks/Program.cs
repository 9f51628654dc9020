using Vmm.Benchmarks;

switch (args)
{
    case ["mmio", .. var rest]:
        return Mmio.Run(rest.Length > 0 ? int.Parse(rest[0], System.Globalization.CultureInfo.InvariantCulture) : 15);
#if NET10_0_OR_GREATER
    case ["dispatch", ..]:
        return Dispatch.Run();
#endif
    case ["startup", var vmm, ..]:
        return Startup.Run(vmm);
    case ["memory", var vmm, ..]:
        return ResidentMemory.Run(vmm);
    default:
        Console.Error.WriteLine("usage: Vmm.Benchmarks mmio [ROUNDS] | dispatch | startup VMM | memory VMM    (see README.md)");
        return 2;
}
