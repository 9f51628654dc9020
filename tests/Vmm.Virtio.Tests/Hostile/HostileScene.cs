using Vmm.Core.Events;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>What devices under attack are made of: two event loops that they share with a neighbour, and a directory for their files.</summary>
public sealed class HostileScene : IDisposable
{
    private readonly List<Exception> _failures = [];
    private readonly Dictionary<string, IDisposable> _owned = [];
    private readonly EventLoop[] _loops;
    private readonly DirectoryInfo _directory = System.IO.Directory.CreateTempSubdirectory("vmm-hostile-");

    public HostileScene() => _loops = [new EventLoop("hostile0", Failed), new EventLoop("hostile1", Failed)];

    /// <summary>The loops.</summary>
    public IReadOnlyList<EventLoop> Loops => _loops;

    /// <summary>A directory that is deleted at the end.</summary>
    public string Directory => _directory.FullName;

    /// <summary>What handlers threw, which none may.</summary>
    public IReadOnlyList<Exception> Failures
    {
        get
        {
            lock (_failures)
                return [.. _failures];
        }
    }

    /// <summary>The path of a file of zeroes, made by the first call for its name.</summary>
    public string FileOf(string name, long length)
    {
        string path = Path.Combine(Directory, name);
        if (!File.Exists(path))
        {
            using FileStream file = File.Create(path);
            file.SetLength(length);
        }
        return path;
    }

    /// <summary>Something that outlives the devices: made by the first call for its name, disposed of at the end.</summary>
    public T Once<T>(string name, Func<T> make) where T : IDisposable
    {
        if (!_owned.TryGetValue(name, out IDisposable? owned))
            _owned.Add(name, owned = make());
        return (T)owned;
    }

    /// <summary>Waits until the loops have served all that was rung before.</summary>
    public void Settle()
    {
        // The first call may come before the loop looks at its descriptors, the second comes after.
        for (int i = 0; i < 2; i++)
        {
            foreach (EventLoop loop in _loops)
                loop.Invoke(static () => { });
        }
    }

    /// <summary>Bytes that the loops' threads have allocated so far.</summary>
    public long AllocatedByLoops()
    {
        long sum = 0;
        foreach (EventLoop loop in _loops)
            loop.Invoke(() => sum += GC.GetAllocatedBytesForCurrentThread());
        return sum;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (EventLoop loop in _loops)
            loop.Dispose();
        foreach (IDisposable owned in _owned.Values)
            owned.Dispose();
        _directory.Delete(recursive: true);
    }

    private void Failed(Exception e)
    {
        lock (_failures)
            _failures.Add(e);
    }
}
