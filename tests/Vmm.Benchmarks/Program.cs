using Vmm.Benchmarks;

switch (args)
{
    case ["mmio", .. var rest]:
        return Mmio.Run(Rounds(rest, 15));
    case ["block", .. var rest]:
        return Block.Run(Rounds(rest, 7));
    case ["net", .. var rest]:
        return Net.Run(Rounds(rest, 7));
    case ["windows", .. var rest]:
        return Windows.Run(Rounds(rest, 200));
#if NET10_0_OR_GREATER
    case ["dispatch", ..]:
        return Dispatch.Run();
    case ["boot", var vmm, .. var rest]:
        return await Boot.RunAsync(vmm, Rounds(rest, 5));
    case ["unpack", var vmm, .. var rest]:
        return await Boot.RunUnpackAsync(vmm, Rounds(rest, 2), rest.Length > 1 ? rest[1..] : ["debian-12", "debian-13"]);
    case ["virtio", var vmm, .. var rest]:
        return await Virtio.RunAsync(vmm, Rounds(rest, 5), countInstructions: !rest.Contains("--time"));
#endif
    case ["startup", var vmm, ..]:
        return Startup.Run(vmm);
    case ["queue", ..]:
        return QueueCost.Run();
    case ["memory", var vmm, ..]:
        return ResidentMemory.Run(vmm);
    default:
        Console.Error.WriteLine("usage: Vmm.Benchmarks mmio [ROUNDS] | queue | block [ROUNDS] | net [ROUNDS] | windows [ROUNDS] | dispatch | startup VMM | memory VMM | boot VMM [ROUNDS] | unpack VMM [ROUNDS [GUEST...]] | virtio VMM [ROUNDS [--time]]    (see README.md)");
        return 2;
}

static int Rounds(string[] arguments, int otherwise) =>
    arguments.Length > 0 ? int.Parse(arguments[0], System.Globalization.CultureInfo.InvariantCulture) : otherwise;
