namespace Vmm.Exec;

/// <summary>A file system that the guest's init mounts in the new root.</summary>
/// <param name="Type">Its type, which is its source too.</param>
/// <param name="Directory">Where, made where it is missing.</param>
/// <param name="Flags">As mount(2) has them.</param>
/// <param name="Options">The file system's own.</param>
/// <param name="IsNeeded">Whether the guest cannot do without it.</param>
internal sealed record InitMount(string Type, string Directory, uint Flags, string Options, bool IsNeeded);

/// <summary>What the guest's init does: all of it is decided on the host.</summary>
internal sealed record InitPlan
{
    /// <summary>What the guest mounts its root by.</summary>
    internal const string Tag = "vmm-root";

    /// <summary>The ports of the command's streams, in the order of their numbers.</summary>
    internal static readonly string[] Ports = ["vmm.stdin", "vmm.stdout", "vmm.stderr"];

    private const uint NoSuid = 2, NoDev = 4, NoExec = 8;

    /// <summary>What is loaded first.</summary>
    internal IReadOnlyList<KernelModule> Modules { get; init; } = [];

    /// <summary>The host's directory stays as it is; what is written is in the guest's memory.</summary>
    internal bool IsCopyOnWrite { get; init; } = true;

    /// <summary>What is mounted in the new root, in this order.</summary>
    internal IReadOnlyList<InitMount> Mounts { get; init; } = [];

    /// <summary>Where the command begins.</summary>
    internal string Directory { get; init; } = "/";

    /// <summary>Whether it must be there; else it is / where it is not.</summary>
    internal bool IsDirectoryNeeded { get; init; }

    /// <summary>Where the command is looked for, in this order.</summary>
    internal IReadOnlyList<string> Candidates { get; init; } = [];

    /// <summary>The command and its arguments.</summary>
    internal IReadOnlyList<string> Arguments { get; init; } = [];

    /// <summary>Its environment, as NAME=VALUE.</summary>
    internal IReadOnlyList<string> Environment { get; init; } = [];

    /// <summary>The path of a module in the initramfs.</summary>
    internal static string ModulePath(int index) => $"/modules/{index}";

    /// <summary>The file systems that programs expect. Where the command begins in one of the empty ones, the tree's own stays in its place.</summary>
    internal static IReadOnlyList<InitMount> MountsFor(string directory)
    {
        List<InitMount> mounts =
        [
            new("proc", "/proc", NoSuid | NoDev | NoExec, "", true),
            new("sysfs", "/sys", NoSuid | NoDev | NoExec, "", true),
            new("devtmpfs", "/dev", NoSuid, "mode=755", true),
            new("devpts", "/dev/pts", NoSuid | NoExec, "gid=5,mode=620,ptmxmode=666", false),
            new("tmpfs", "/dev/shm", NoSuid | NoDev, "mode=1777", false),
            new("cgroup2", "/sys/fs/cgroup", NoSuid | NoDev | NoExec, "", false),
            new("debugfs", "/sys/kernel/debug", NoSuid | NoDev | NoExec, "", false),
            new("tracefs", "/sys/kernel/tracing", NoSuid | NoDev | NoExec, "", false),
            new("securityfs", "/sys/kernel/security", NoSuid | NoDev | NoExec, "", false),
            new("configfs", "/sys/kernel/config", NoSuid | NoDev | NoExec, "", false),
            new("bpf", "/sys/fs/bpf", NoSuid | NoDev | NoExec, "", false),
        ];
        if (!IsIn(directory, "/run"))
            mounts.Add(new InitMount("tmpfs", "/run", NoSuid | NoDev, "mode=755", true));
        if (!IsIn(directory, "/tmp"))
            mounts.Add(new InitMount("tmpfs", "/tmp", NoSuid | NoDev, "mode=1777", true));
        return mounts;
    }

    /// <summary>Where execvp(3) would look for a command.</summary>
    /// <param name="command">As it was given.</param>
    /// <param name="path">The value of PATH; an empty part of it is the current directory.</param>
    internal static IReadOnlyList<string> CandidatesFor(string command, string path)
    {
        if (command.Length == 0)
            return [];
        if (command.Contains('/', StringComparison.Ordinal))
            return [command];
        var candidates = new List<string>();
        foreach (string part in path.Split(':'))
        {
            string candidate = part.Length == 0 ? $"./{command}" : part.EndsWith('/') ? part + command : $"{part}/{command}";
            if (!candidates.Contains(candidate))
                candidates.Add(candidate);
        }
        return candidates;
    }

    private static bool IsIn(string path, string directory) => path == directory || path.StartsWith(directory + "/", StringComparison.Ordinal);
}
