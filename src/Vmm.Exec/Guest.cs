using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Machine.Configuration;
using Vmm.Virtio.Transport;

namespace Vmm.Exec;

/// <summary>The guest of a command: its kernel's modules, its initramfs, its root and its machine, from what was asked for.</summary>
internal sealed class Guest
{
    private readonly VmConfig _config;
    private readonly ExecOptions _options;

    /// <summary>Checks what was asked for.</summary>
    /// <exception cref="VmmException">There is no kernel, no root or no command, or something that is made here is asked for.</exception>
    internal Guest(VmConfig config, ExecOptions options)
    {
        _config = config;
        _options = options;
        if (config.Payload.Kernel is null)
            throw VmmException.Configuration("there is no kernel to run the command in; name one with --kernel PATH.");
        if (config.Payload.Initramfs is not null)
            throw VmmException.Configuration("--initramfs: the command's guest has one of its own; leave the option out.");
        if (config.Serial.Backend == ConsoleBackend.Tty || config.Console.Backend == ConsoleBackend.Tty)
            throw VmmException.Configuration("--serial tty and --console tty: the terminal is the command's; send the guest's console to a file (--serial file=PATH).");
        if (options.Command.Count == 0)
            throw VmmException.Configuration("there is no command; write it behind the options: vmm exec --kernel PATH -- COMMAND [ARGUMENT...].");
        if (!Directory.Exists(options.Root))
            throw VmmException.Configuration($"--rootfs: there is no directory {OptionGrammar.Show(options.Root)}; name one, or host for this host's own tree.");
        foreach (string text in (IEnumerable<string>)[.. options.Command, .. options.Environment, options.Directory])
        {
            if (text.Contains('\0', StringComparison.Ordinal))
                throw VmmException.Configuration("an argument or a variable has a zero byte in it, which no program can be given.");
        }
    }

    /// <summary>What its init does.</summary>
    /// <exception cref="VmmException">The kernel cannot be read, or modules are missing.</exception>
    internal InitPlan MakePlan()
    {
        string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        foreach (string variable in _options.Environment)
        {
            if (variable.StartsWith("PATH=", StringComparison.Ordinal))
                path = variable["PATH=".Length..];
        }
        return new InitPlan
        {
            Modules = FindModules() is { } modules ? new KernelModules(modules).Resolve(NeededModules(), WantedModules()) : [],
            IsCopyOnWrite = !_options.IsWritable,
            Mounts = InitPlan.MountsFor(_options.Directory),
            Directory = _options.Directory,
            IsDirectoryNeeded = _options.IsDirectoryNeeded,
            Candidates = InitPlan.CandidatesFor(_options.Command[0], path),
            Arguments = _options.Command,
            Environment = _options.Environment,
        };
    }

    /// <summary>Its initramfs: init, modules, and places to mount at.</summary>
    /// <exception cref="VmmException">A module cannot be read.</exception>
    internal static MemoryFile MakeInitramfs(InitPlan plan)
    {
        var file = new MemoryFile("initramfs");
        try
        {
            var archive = new CpioArchive(file.Stream);
            foreach (string directory in (string[])["dev", "lower", "cow", "newroot", "modules"])
                archive.AddDirectory(directory);
            // Where the kernel opens init's standard streams.
            archive.AddCharacterDevice("dev/console", 5, 1);
            archive.AddFile("init", InitProgram.Build(plan), executable: true);
            for (int i = 0; i < plan.Modules.Count; i++)
                archive.AddFile(InitPlan.ModulePath(i)[1..], File.ReadAllBytes(plan.Modules[i].Path));
            archive.Complete();
            file.Stream.Flush();
            return file;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            file.Dispose();
            throw VmmException.Host($"Cannot make the guest's initramfs: {e.Message.ReplaceLineEndings(" ")}", e);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>What virtiofsd is to do.</summary>
    /// <param name="help">What it says of its options.</param>
    internal IReadOnlyList<string> ShareArguments(string help)
    {
        string sandbox = _options.Sandbox switch
        {
            ShareSandbox.None => "none",
            ShareSandbox.Namespace => "namespace",
            ShareSandbox.Chroot => "chroot",
            _ => LibC.geteuid() == 0 ? "chroot" : "none",
        };
        List<string> arguments = ["--shared-dir", Path.GetFullPath(_options.Root), "--sandbox", sandbox, "--cache", "auto"];
        if (_options.IsWritable)
            return arguments;
        // 1.13 and later can be kept from writing, whatever the guest does.
        if (help.Contains("--readonly", StringComparison.Ordinal))
            arguments.Add("--readonly");
        // What is mounted below the root would be mounted below it in the guest too, where an overlay does not go (EREMOTE).
        if (help.Contains("--no-announce-submounts", StringComparison.Ordinal))
            arguments.Add("--no-announce-submounts");
        return arguments;
    }

    /// <summary>Its machine.</summary>
    /// <param name="initramfs">The path of its initramfs.</param>
    /// <param name="socket">The path of virtiofsd's socket.</param>
    internal VmConfig Configure(string initramfs, string socket)
    {
        string commandLine = $"console=ttyS0 panic=-1{(_options.IsVerbose ? "" : " quiet")}";
        if (_config.Payload.CommandLine.Length > 0)
            commandLine += " " + _config.Payload.CommandLine;
        // Without it back: who loses it has lost the guest's root.
        var backEnd = new BackEndOptions(socket, null, false, null, false, null) { IsBeingStarted = true };
        return _config with
        {
            Payload = _config.Payload with { Initramfs = initramfs, CommandLine = commandLine },
            Memory = _config.Memory with { Shared = true },
            Fs = new ConfigList<FsConfig>([.. _config.Fs, new FsConfig(InitPlan.Tag, 1, 1024, backEnd, new VirtioOptions("vmm-root"))]),
            OnReboot = _config.OnReboot with { Action = RebootAction.Exit },
            DebugExit = new DebugExitConfig(true),
        };
    }

    /// <summary>The directory of the kernel's modules; null where there is none, and the kernel is thought to have all in itself.</summary>
    private string? FindModules()
    {
        if (_options.Modules is { } named)
        {
            if (File.Exists(Path.Combine(named, "modules.dep")))
                return named;
            // The directory above those of all releases is meant too, and so is that of a package's tree.
            if (KernelRelease.Read(_config.Payload.Kernel!) is { } wanted)
            {
                foreach (string under in (string[])[wanted, $"lib/modules/{wanted}", $"usr/lib/modules/{wanted}"])
                {
                    if (File.Exists(Path.Combine(named, under, "modules.dep")))
                        return Path.Combine(named, under);
                }
                throw VmmException.Configuration($"--modules: {OptionGrammar.Show(named)} has no modules.dep, nor modules of this kernel's release, {wanted}; name the directory of its modules.");
            }
            throw VmmException.Configuration($"--modules: {OptionGrammar.Show(named)} has no modules.dep; name the directory of this kernel's modules.");
        }
        if (KernelRelease.Read(_config.Payload.Kernel!) is not { } release)
            return null;
        foreach (string root in (string[])[_options.Root, "/"])
        {
            foreach (string modules in (string[])["lib/modules", "usr/lib/modules"])
            {
                string directory = Path.Combine(root, modules, release);
                if (File.Exists(Path.Combine(directory, "modules.dep")))
                    return directory;
            }
        }
        return null;
    }

    private List<string> NeededModules()
    {
        List<string> needed = [_config.Bus.Default == VirtioBus.Mmio ? "virtio_mmio" : "virtio_pci", "virtio_console", "virtiofs"];
        if (!_options.IsWritable)
            needed.Add("overlay");
        return needed;
    }

    /// <summary>Of the devices that were asked for, so that they are there when the command starts; and of the panic that the host is told of.</summary>
    private List<string> WantedModules()
    {
        List<string> wanted = ["pvpanic_mmio", "virtio_pci", "virtio_mmio"];
        if (_config.Net.Count > 0)
            wanted.Add("virtio_net");
        if (_config.Disks.Count > 0)
            wanted.Add("virtio_blk");
        if (_config.Rng is not null)
            wanted.Add("virtio_rng");
        if (_config.Balloon is not null)
            wanted.Add("virtio_balloon");
        if (_config.Vsock is not null)
            wanted.Add("vmw_vsock_virtio_transport");
        if (_config.Pmem.Count > 0)
            wanted.AddRange(["virtio_pmem", "nd_pmem"]);
        if (_config.Memory.HotplugSize > 0)
            wanted.Add("virtio_mem");
        if (_config.Gpu.Count > 0)
            wanted.Add("virtio_gpu");
        return wanted;
    }
}
