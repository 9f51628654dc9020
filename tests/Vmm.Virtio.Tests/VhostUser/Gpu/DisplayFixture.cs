using System.Collections.Concurrent;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd;
using Vmm.Virtio.VhostUser.Gpu;

namespace Vmm.Virtio.Tests.VhostUser.Gpu;

/// <summary>A display, and a back-end's end of a connection to it.</summary>
internal sealed class DisplayFixture : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("vmm-dpy");

    public DisplayFixture(Func<DisplaySettings, DisplaySettings>? adjust = null, bool screenshot = false)
    {
        Screenshot = Path.Combine(_directory.FullName, "screen.ppm");
        var settings = new DisplaySettings { Screenshot = screenshot ? Screenshot : null, ScreenshotInterval = 20, Reply = 200 };
        Display = new HeadlessDisplay("gpu0", adjust?.Invoke(settings) ?? settings, Log.Enqueue);
        Peer = Connect();
    }

    public HeadlessDisplay Display { get; }

    public GpuDisplay Peer { get; private set; }

    public string Screenshot { get; }

    public ConcurrentQueue<string> Log { get; } = new();

    public DisplayCounters Counters => Display.Counters;

    /// <summary>Another connection, in place of the one before.</summary>
    public GpuDisplay Connect()
    {
        (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
        Display.Connect(ours);
        return Peer = new GpuDisplay(theirs);
    }

    /// <summary>All that was sent has been taken, and the connection is there.</summary>
    public void Settle() => Assert.NotNull(Peer.Ask(GpuDisplay.GetProtocolFeatures));

    /// <summary>The connection was ended because of a rule, and another one serves.</summary>
    public void AssertBroken(string words)
    {
        Assert.True(Peer.WaitForEnd(), "It is not ended.");
        WaitFor(() => Counters.Breaks == 1, "the end to be counted");
        Assert.Contains(words, Assert.Single(Log), StringComparison.Ordinal);
        Connect();
        Settle();
    }

    public static void WaitFor(Func<bool> condition, string what)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), $"Waited for {what}.");
            Thread.Sleep(2);
        }
    }

    /// <summary>The file's picture, once it is one of which that is true: width, height, and three bytes for each pixel.</summary>
    public (int Width, int Height, byte[] Pixels) WaitForScreenshot(Func<(int Width, int Height, byte[] Pixels), bool> condition)
    {
        (int Width, int Height, byte[] Pixels) picture = default;
        WaitFor(() => File.Exists(Screenshot) && condition(picture = Read(Screenshot)), "a screenshot");
        return picture;
    }

    public static (int Width, int Height, byte[] Pixels) Read(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        int at = 0;
        for (int lines = 0; lines < 3; at++)
            lines += bytes[at] == '\n' ? 1 : 0;
        string[] words = System.Text.Encoding.ASCII.GetString(bytes, 0, at).Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(("P6", "255"), (words[0], words[3]));
        (int width, int height) = (int.Parse(words[1]), int.Parse(words[2]));
        Assert.Equal(width * height * 3, bytes.Length - at);
        return (width, height, bytes[at..]);
    }

    public void Dispose()
    {
        Peer.Dispose();
        Display.Dispose();
        _directory.Delete(recursive: true);
    }
}
