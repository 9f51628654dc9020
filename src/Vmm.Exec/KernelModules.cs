using Vmm.Core;

namespace Vmm.Exec;

/// <summary>A module to load.</summary>
/// <param name="Path">Its file on the host.</param>
/// <param name="IsNeeded">Whether the guest cannot do without it.</param>
internal sealed record KernelModule(string Path, bool IsNeeded)
{
    /// <summary>Whether the kernel has to unpack it (MODULE_INIT_COMPRESSED_FILE).</summary>
    internal bool IsCompressed => !Path.EndsWith(".ko", StringComparison.Ordinal);
}

/// <summary>
/// A kernel's directory of modules: what there is (<c>modules.dep</c>), what each needs, and what is in the kernel itself
/// (<c>modules.builtin</c>).
/// </summary>
internal sealed class KernelModules
{
    private readonly string _directory;

    // By module name, as the kernel has it: with underscores.
    private readonly Dictionary<string, (string Path, string[] Needs)> _modules = [];
    private readonly HashSet<string> _builtIn = [];
    private readonly bool _knowsBuiltIn;

    /// <summary>Reads one.</summary>
    /// <param name="directory">The directory of one release: <c>/lib/modules/6.12.0-1-amd64</c>.</param>
    /// <exception cref="VmmException">It has no modules.dep, or that cannot be read.</exception>
    internal KernelModules(string directory)
    {
        _directory = directory;
        try
        {
            foreach (string line in File.ReadLines(Path.Combine(directory, "modules.dep")))
            {
                int colon = line.IndexOf(':');
                if (colon > 0)
                    _modules[NameOf(line[..colon])] = (line[..colon], line[(colon + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries));
            }
            string builtIn = Path.Combine(directory, "modules.builtin");
            _knowsBuiltIn = File.Exists(builtIn);
            if (_knowsBuiltIn)
            {
                foreach (string line in File.ReadLines(builtIn))
                    _builtIn.Add(NameOf(line));
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw VmmException.Host($"Cannot read the kernel's modules in {directory}: {e.Message.ReplaceLineEndings(" ")} Run depmod, or name another directory with --modules.");
        }
    }

    /// <summary>The kernel's name of a module's file: without directories and endings, with underscores.</summary>
    internal static string NameOf(string path)
    {
        string name = Path.GetFileName(path.Trim());
        int ending = name.IndexOf(".ko", StringComparison.Ordinal);
        return (ending < 0 ? name : name[..ending]).Replace('-', '_');
    }

    /// <summary>What has to be loaded for these, in an order in which each comes after what it needs.</summary>
    /// <param name="needed">Modules that have to be there, or be a part of the kernel.</param>
    /// <param name="wanted">Modules that are left out where they are not.</param>
    /// <exception cref="VmmException">One is missing, or modules need each other.</exception>
    internal IReadOnlyList<KernelModule> Resolve(IEnumerable<string> needed, IEnumerable<string> wanted)
    {
        var order = new List<KernelModule>();
        var done = new HashSet<string>();
        foreach (string name in needed)
        {
            if (_builtIn.Contains(name))
                continue;
            if (_modules.TryGetValue(name, out (string Path, string[] Needs) module))
                Add(module.Path, true, order, done, []);
            else if (_knowsBuiltIn)
                throw VmmException.Host($"The kernel of {_directory} has no {name}, neither as a module nor built in; take a kernel with it (CONFIG_{ConfigurationOf(name)}).");
        }
        foreach (string name in wanted)
        {
            if (!_builtIn.Contains(name) && _modules.TryGetValue(name, out (string Path, string[] Needs) module))
                Add(module.Path, false, order, done, []);
        }
        return order;
    }

    private void Add(string path, bool isNeeded, List<KernelModule> order, HashSet<string> done, List<string> above)
    {
        string name = NameOf(path);
        if (done.Contains(name))
            return;
        if (above.Contains(name))
            throw VmmException.Host($"The kernel's modules {string.Join(" and ", above.SkipWhile(one => one != name))} need each other, says {_directory}/modules.dep; run depmod.");
        string file = Path.GetFullPath(path, _directory);
        if (!File.Exists(file))
        {
            if (!isNeeded)
                return;
            throw VmmException.Host($"The kernel's module {file} is missing, which {_directory}/modules.dep names; install the kernel's modules again, or name another directory with --modules.");
        }
        above.Add(name);
        if (_modules.TryGetValue(name, out (string Path, string[] Needs) module))
        {
            foreach (string need in module.Needs)
                Add(need, isNeeded, order, done, above);
        }
        above.RemoveAt(above.Count - 1);
        done.Add(name);
        order.Add(new KernelModule(file, isNeeded));
    }

    private static string ConfigurationOf(string name) => name switch
    {
        "virtiofs" => "VIRTIO_FS",
        "overlay" => "OVERLAY_FS",
        _ => name.ToUpperInvariant(),
    };
}
