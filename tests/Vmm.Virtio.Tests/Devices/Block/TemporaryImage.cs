using System.Diagnostics;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Devices.Block.Engines;

namespace Vmm.Virtio.Tests.Devices.Block;

/// <summary>An image file of its own directory, or what the machine has to stand in for a full disk.</summary>
internal sealed class TemporaryImage : IDisposable
{
    private readonly bool _mounted;
    private string? _loop;

    private TemporaryImage(string directory, long size, bool mounted)
    {
        _mounted = mounted;
        Directory = directory;
        Path = System.IO.Path.Combine(directory, "disk.img");
        using FileStream file = File.Create(Path);
        file.SetLength(size);
    }

    public string Directory { get; }

    public string Path { get; }

    public static TemporaryImage Make(long size) => new(System.IO.Directory.CreateTempSubdirectory("vmm-block").FullName, size, false);

    /// <summary>On a file system of its own that is too small for it. Skips where the test may not mount.</summary>
    public static TemporaryImage MakeOnTinyFileSystem(long size, string room)
    {
        string directory = System.IO.Directory.CreateTempSubdirectory("vmm-block").FullName;
        if (Run("mount", "-t", "tmpfs", "-o", $"size={room}", "none", directory) != null)
            return new TemporaryImage(directory, size, true);
        System.IO.Directory.Delete(directory);
        Skip.If(true, "a tmpfs cannot be mounted here; run as root");
        throw new UnreachableException();
    }

    /// <summary>As a block device. Skips where there are no loop devices.</summary>
    public string AttachLoop()
    {
        _loop = Run("losetup", "--find", "--show", Path)?.Trim();
        Skip.If(string.IsNullOrEmpty(_loop), "losetup does not work here");
        return _loop!;
    }

    public byte[] Content() => File.ReadAllBytes(Path);

    public static void NeedsEngine(BlockEngineKind engine)
    {
        if (engine == BlockEngineKind.IoUring && IoUringEngine.Probe() is { } problem)
            Skip.If(true, problem);
    }

    /// <summary>Skips where the directory for temporary files has no O_DIRECT.</summary>
    public void NeedsDirect(bool direct)
    {
        if (!direct)
            return;
        try
        {
            DiskImage.Open(BlockGuest.Config(Path, BlockEngineKind.Sync, direct: true)).Dispose();
        }
        catch (Core.VmmException e)
        {
            Dispose();
            Skip.If(true, e.Message);
        }
    }

    public void Dispose()
    {
        if (_loop != null)
            Run("losetup", "--detach", _loop);
        if (_mounted)
            Run("umount", Directory);
        if (System.IO.Directory.Exists(Directory))
            System.IO.Directory.Delete(Directory, recursive: true);
    }

    public static string? Run(string command, params string[] arguments)
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo(command, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            string output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? output : null;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }
}
