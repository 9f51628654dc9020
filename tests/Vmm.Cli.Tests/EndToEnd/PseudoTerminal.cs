using System.Text;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>A terminal with somebody at it.</summary>
internal sealed unsafe class PseudoTerminal : IDisposable
{
    private readonly int _slave;
    private readonly termios _before;
    private readonly StringBuilder _seen = new();
    private int _master;

    internal PseudoTerminal()
    {
        int master, slave;
        byte* name = stackalloc byte[128];
        termios before;
        Assert.Equal(0, openpty(&master, &slave, name, null, null));
        (_master, _slave) = (master, slave);

        // The program must have neither: a terminal whose master it had itself would never be lost.
        Assert.Equal(0, fcntl(master, F_SETFD, FD_CLOEXEC));
        Assert.Equal(0, fcntl(slave, F_SETFD, FD_CLOEXEC));
        Assert.Equal(0, tcgetattr(slave, &before));
        _before = before;
        Path = System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)name)!;
    }

    internal string Path { get; }

    internal string Seen
    {
        get
        {
            byte* buffer = stackalloc byte[4096];
            while (true)
            {
                var wait = new pollfd { fd = _master, events = POLLIN };
                if (_master < 0 || poll(&wait, 1, 0) <= 0 || (wait.revents & POLLIN) == 0 || read(_master, buffer, 4096) is not (var length and > 0))
                    return _seen.ToString();
                _seen.Append(Encoding.UTF8.GetString(buffer, (int)length));
            }
        }
    }

    internal bool IsRaw
    {
        get
        {
            termios now;
            Assert.Equal(0, tcgetattr(_slave, &now));
            return (now.c_lflag & (ICANON | ECHO | ISIG)) == 0;
        }
    }

    internal bool IsAsBefore
    {
        get
        {
            termios now, before = _before;
            Assert.Equal(0, tcgetattr(_slave, &now));
            return new ReadOnlySpan<byte>(&before, sizeof(termios)).SequenceEqual(new ReadOnlySpan<byte>(&now, sizeof(termios)));
        }
    }

    internal void Expect(string text) =>
        Assert.True(SpinWait.SpinUntil(() => Seen.Contains(text, StringComparison.Ordinal), VmmProgram.Patience), $"'{text}' did not come; there was: {Seen}");

    internal void Type(string keys)
    {
        byte[] bytes = Encoding.ASCII.GetBytes(keys);
        fixed (byte* start = bytes)
            Assert.Equal(bytes.Length, (int)write(_master, start, (nuint)bytes.Length));
    }

    /// <summary>Takes the terminal away.</summary>
    internal void Lose()
    {
        _ = close(_master);
        _master = -1;
    }

    public void Dispose()
    {
        _ = close(_slave);
        if (_master >= 0)
            _ = close(_master);
    }
}
