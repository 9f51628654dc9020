using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;

namespace Vmm.Exec.Tests;

/// <summary>Which modules are loaded, in which order; and by which release they are found.</summary>
public sealed class KernelModulesTests : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("vmm-modules-");

    public void Dispose() => _directory.Delete(recursive: true);

    [Fact]
    public void Each_comes_after_what_it_needs_and_once()
    {
        KernelModules modules = Make(["kernel/v.ko:", "kernel/r.ko: kernel/v.ko", "kernel/virtio-console.ko.xz: kernel/v.ko kernel/r.ko", "kernel/fs/virtiofs.ko: kernel/fuse.ko kernel/r.ko", "kernel/fuse.ko:"], ["kernel/overlay.ko"]);
        IReadOnlyList<KernelModule> order = modules.Resolve(["virtio_console", "virtiofs", "overlay"], ["not_there"]);
        Assert.Equal(["v", "r", "virtio_console", "fuse", "virtiofs"], order.Select(module => KernelModules.NameOf(module.Path)));
        Assert.Equal([false, false, true, false, false], order.Select(module => module.IsCompressed));
        Assert.All(order, module => Assert.True(module.IsNeeded && File.Exists(module.Path)));
    }

    [Fact]
    public void What_only_is_wanted_may_be_missing()
    {
        KernelModules modules = Make(["kernel/a.ko:", "kernel/b.ko: kernel/gone.ko"], []);
        File.Delete(Path.Combine(_directory.FullName, "kernel/gone.ko"));
        Assert.Empty(modules.Resolve([], ["c"]));
        Assert.False(Assert.Single(modules.Resolve([], ["a"])).IsNeeded);
        VmmException error = Assert.Throws<VmmException>(() => modules.Resolve(["b"], []));
        Assert.Contains("gone.ko is missing", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_kernel_without_a_driver_is_refused()
    {
        KernelModules modules = Make([], ["kernel/fs/fuse.ko"]);
        Assert.Empty(modules.Resolve(["fuse"], []));
        Assert.Contains("CONFIG_VIRTIO_FS", Assert.Throws<VmmException>(() => modules.Resolve(["virtiofs"], [])).Message, StringComparison.Ordinal);
        // Where it does not say what is built in, it may be.
        File.Delete(Path.Combine(_directory.FullName, "modules.builtin"));
        Assert.Empty(new KernelModules(_directory.FullName).Resolve(["virtiofs"], []));
        Assert.Throws<VmmException>(() => new KernelModules("/not/there"));
    }

    [Fact]
    public void Modules_that_need_each_other_are_named()
    {
        KernelModules modules = Make(["kernel/a.ko: kernel/b.ko", "kernel/b.ko: kernel/c.ko", "kernel/c.ko: kernel/b.ko"], []);
        string message = Assert.Throws<VmmException>(() => modules.Resolve(["a"], [])).Message;
        Assert.Contains("b and c need each other", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Any_graph_without_cycles_is_put_in_order()
    {
        Prop.ForAll(Gen.Choose(1, 12).SelectMany(count => Gen.ArrayOf(Gen.Choose(0, 10_000), count * count).Select(seed => (count, seed))).ToArbitrary(), graph =>
        {
            string[] needs = [.. Enumerable.Range(0, graph.count).Select(i => $"kernel/m{i}.ko: " + string.Join(' ', Enumerable.Range(0, i).Where(j => graph.seed[(i * graph.count) + j] % 3 == 0).Select(j => $"kernel/m{j}.ko")))];
            IReadOnlyList<KernelModule> order = Make(needs, []).Resolve([.. Enumerable.Range(0, graph.count).Reverse().Select(i => $"m{i}")], []);
            var places = order.Select((module, place) => (Name: KernelModules.NameOf(module.Path), place)).ToDictionary(one => one.Name, one => one.place);
            return places.Count == graph.count && Enumerable.Range(0, graph.count).All(i => Enumerable.Range(0, i).All(j => graph.seed[(i * graph.count) + j] % 3 != 0 || places[$"m{j}"] < places[$"m{i}"]));
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void A_kernels_release_is_read_from_its_file()
    {
        byte[] image = new byte[8192];
        BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x1FE), 0xAA55);
        "HdrS"u8.CopyTo(image.AsSpan(0x202));
        BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x20E), 0x1000);
        "6.12.0+deb13-cloud-amd64 (debian-kernel@lists.debian.org) #1"u8.CopyTo(image.AsSpan(0x1200));
        Assert.Equal("6.12.0+deb13-cloud-amd64", Release(image));
        // Pointers to nowhere, and texts that would lead out of a directory.
        foreach (ushort pointer in new ushort[] { 0, 0x1DFF, 0xFFFF })
        {
            BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x20E), pointer);
            Assert.Null(Release(image));
        }
        BinaryPrimitives.WriteUInt16LittleEndian(image.AsSpan(0x20E), 0x1000);
        foreach (string bad in new[] { "../../etc x", ".. x", " x", "a\u0001b x" })
        {
            System.Text.Encoding.ASCII.GetBytes(bad).CopyTo(image.AsSpan(0x1200));
            Assert.Null(Release(image));
        }
        byte[] elf = new byte[3 << 20];
        "\u007fELF"u8.CopyTo(elf);
        "Linux version %s (%s)"u8.CopyTo(elf.AsSpan(1000));
        // Across the border of what is read at once.
        "Linux version 6.1.0-test (me@here)"u8.CopyTo(elf.AsSpan((1 << 20) - 10));
        Assert.Equal("6.1.0-test", Release(elf));
        Assert.Null(Release("hello"u8.ToArray()));
    }

    private string? Release(byte[] file)
    {
        string path = Path.Combine(_directory.FullName, "vmlinuz");
        File.WriteAllBytes(path, file);
        return KernelRelease.Read(path);
    }

    private KernelModules Make(string[] dependencies, string[] builtIn)
    {
        File.WriteAllLines(Path.Combine(_directory.FullName, "modules.dep"), dependencies);
        File.WriteAllLines(Path.Combine(_directory.FullName, "modules.builtin"), builtIn);
        foreach (string path in dependencies.SelectMany(line => line.Replace(":", "", StringComparison.Ordinal).Split(' ', StringSplitOptions.RemoveEmptyEntries)))
        {
            string file = Path.Combine(_directory.FullName, path);
            Directory.CreateDirectory(Path.GetDirectoryName(file)!);
            File.WriteAllBytes(file, [1]);
        }
        return new KernelModules(_directory.FullName);
    }
}
