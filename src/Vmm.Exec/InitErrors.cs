using System.Globalization;
using Vmm.Core.Interop;
using Vmm.Machine.Configuration;

namespace Vmm.Exec;

/// <summary>What the guest's init failed at, as sentences.</summary>
internal static class InitErrors
{
    private const int NoDevice = 19, InvalidArgument = 22;

    internal static string NotFound(InitPlan plan) => plan.Candidates.Count > 1
        ? $"There is no command {OptionGrammar.Show(plan.Arguments[0])} in the guest's tree, on its PATH; name it by its path, or give another PATH with --env."
        : $"There is no {OptionGrammar.Show(plan.Arguments[0])} in the guest's tree, or what runs it (#!, the dynamic loader) is not there; see --rootfs and --chdir.";

    internal static string NotExecuted(InitPlan plan, int error) =>
        $"The guest cannot execute {OptionGrammar.Show(plan.Arguments[0])}: {LibC.strerror(error)}.";

    internal static string Describe(InitPlan plan, InitCode code)
    {
        string why = string.Create(CultureInfo.InvariantCulture, $"{LibC.strerror(code.Low)} (errno {code.Low})");
        return code.Step switch
        {
            InitStep.LoadModule => $"The guest's kernel does not take its module {Path.GetFileName(Module(plan, code.Index))}: {why}; give the modules of this very kernel with --modules.",
            InitStep.MountShare when code.Low == NoDevice => "The guest's kernel has no virtiofs; take one with CONFIG_VIRTIO_FS, or give its modules with --modules.",
            InitStep.MountShare when code.Low == InvalidArgument => "The guest's kernel found no virtio file system; take one with CONFIG_VIRTIO_PCI, or give its modules with --modules.",
            InitStep.MountShare => $"The guest cannot mount its root: {why}; see with -v what virtiofsd says.",
            InitStep.MountOverlay when code.Low == NoDevice => "The guest's kernel has no overlay file system, by which the host's directory stays as it is; take one with CONFIG_OVERLAY_FS, give its modules with --modules, or run with --rw.",
            InitStep.MountUpper or InitStep.MakeDirectory or InitStep.MountOverlay => $"The guest cannot put a layer of its own over its root: {why}; see with -v what its kernel says.",
            InitStep.Mount when code.Index < plan.Mounts.Count => $"The guest cannot mount {plan.Mounts[code.Index].Type} on {plan.Mounts[code.Index].Directory}: {why}; make that directory in the root where --rw cannot.",
            InitStep.EnterRoot => $"The guest cannot enter its root: {why}.",
            InitStep.OpenPort => $"The guest's kernel has no port for the command's {Stream(code.Index)}: {why}; take one with CONFIG_VIRTIO_CONSOLE and CONFIG_DEVTMPFS, or give its modules with --modules.",
            InitStep.ChangeDirectory => $"The guest cannot go to {OptionGrammar.Show(plan.Directory)}: {why}; give a directory of its tree with --chdir.",
            InitStep.MakePipe or InitStep.MakeThread or InitStep.StartCommand => $"The guest cannot start a process: {why}; give it more memory (--memory size=).",
            _ => string.Create(CultureInfo.InvariantCulture, $"The guest ended with the code 0x{code.Value:x8} before the command did."),
        };
    }

    private static string Module(InitPlan plan, int index) => index < plan.Modules.Count ? plan.Modules[index].Path : "";

    private static string Stream(int port) => port switch { 0 => "standard input", 1 => "standard output", _ => "standard error" };
}
