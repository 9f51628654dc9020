using System.Diagnostics;
using System.Text;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Machine.Tests.Console;

/// <summary>A program on a real pseudo-terminal: what it does with the terminal's mode, on every way out.</summary>
public sealed unsafe class TerminalTests
{
    private const int Patience = 20_000;

    [Fact]
    public void Ctrl_A_x_ends_and_the_terminal_is_as_before() => Run("", pty =>
    {
        pty.Type("hello");
        pty.Expect("hello");
        Assert.Equal(0u, pty.LocalMode & (ICANON | ECHO | ISIG));
        pty.Type("\u0001x");
        pty.ExpectExit(7);
    });

    [Fact]
    public void The_other_ctrl_A_keys_do_what_the_help_says() => Run("", pty =>
    {
        pty.Type("\u0001h");
        pty.Expect("Ctrl-A x       end the machine at once");
        pty.Type("\u0001p");
        pty.Expect("<PowerButton>");
        pty.Type("\u0001c");
        pty.Expect("<CtrlAltDelete>");
        pty.Type("[\u0001\u0001]");
        pty.Expect("[\u0001]");
        pty.Type("\u0001x");
        pty.ExpectExit(7);
    });

    [Theory]
    [InlineData(SIGTERM)]
    [InlineData(SIGINT)]
    [InlineData(SIGHUP)]
    [InlineData(SIGQUIT)]
    public void A_signal_ends_and_the_terminal_is_as_before(int signal) => Run("", pty =>
    {
        pty.Kill(signal);
        pty.ExpectExit(128 + signal);
    });

    [Fact]
    public void A_crash_leaves_the_terminal_as_before() => Run("", pty =>
    {
        pty.Type("!");
        pty.ExpectExit(134);
    });

    [Fact]
    public void A_guest_that_takes_no_input_can_still_be_ended() => Run("hung", pty =>
    {
        pty.Type(new string('x', 1000));
        pty.Type("\u0001x");
        pty.ExpectExit(7);
    });

    [Fact]
    public void A_terminal_that_nobody_reads_can_still_be_left() => Run("flood", pty =>
    {
        // Until it is full in both the terminal and the ring, nobody reads.
        Thread.Sleep(300);
        pty.Type("\u0001x");
        pty.ExpectExit(7);
    });

    [Fact]
    public void A_lost_terminal_ends_the_program() => Run("", pty =>
    {
        pty.CloseMaster();
        pty.ExpectExit(1, restored: false);
    });

    [Fact]
    public void A_closed_pipe_as_output_ends_the_program()
    {
        using Process process = Start("flood | head -c 100000 > /dev/null; exit ${PIPESTATUS[0]}", "< /dev/null", "/bin/bash");
        Assert.True(process.WaitForExit(Patience));
        Assert.Equal(1, process.ExitCode);
    }

    [Theory]
    [InlineData("< /dev/null")]
    [InlineData("<&-")]
    public void Without_input_it_runs_on(string input)
    {
        using Process process = Start("", input + " > /dev/null", "/bin/bash");
        Assert.False(process.WaitForExit(1500));
        _ = kill(process.Id, SIGTERM);
        Assert.True(process.WaitForExit(Patience));
        Assert.Equal(128 + SIGTERM, process.ExitCode);
    }

    private static void Run(string mode, Action<Terminal> test)
    {
        using var terminal = new Terminal(mode);
        terminal.Expect("ready");
        test(terminal);
    }

    private static Process Start(string mode, string redirections, string shell)
    {
        string program = Path.ChangeExtension(typeof(TerminalTests).Assembly.Location, null);
        string exec = mode.Contains('|', StringComparison.Ordinal) ? "" : "exec ";
        return Process.Start(new ProcessStartInfo(shell, ["-c", $"{exec}'{program}' console-host {(exec.Length > 0 ? mode + " " + redirections : mode)}"])
        {
            UseShellExecute = false,
            RedirectStandardError = true,
        })!;
    }

    [System.Runtime.InteropServices.DllImport("libc")]
    private static extern int kill(int pid, int signal);

    private sealed class Terminal : IDisposable
    {
        private readonly Process _process;
        private readonly int _slave;
        private readonly termios _before;
        private readonly StringBuilder _seen = new();
        private int _master;

        internal Terminal(string mode)
        {
            int master, slave;
            byte* name = stackalloc byte[128];
            termios before;
            Assert.Equal(0, openpty(&master, &slave, name, null, null));
            (_master, _slave) = (master, slave);

            // FD_CLOEXEC: a terminal whose master the program itself had would never be lost.
            Assert.Equal(0, fcntl(master, 2 /* F_SETFD */, 1));
            _ = tcgetattr(slave, &before);
            _before = before;
            string path = System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)name)!;
            _process = Start(mode, $"<> {path} >&0", "/bin/sh");
        }

        internal uint LocalMode
        {
            get
            {
                termios now;
                _ = tcgetattr(_slave, &now);
                return now.c_lflag;
            }
        }

        internal void Type(string keys)
        {
            byte[] bytes = Encoding.ASCII.GetBytes(keys);
            fixed (byte* start = bytes)
                Assert.Equal(bytes.Length, (int)write(_master, start, (nuint)bytes.Length));
        }

        internal void Expect(string text)
        {
            long until = Environment.TickCount64 + Patience;
            byte* buffer = stackalloc byte[4096];
            while (!_seen.ToString().Contains(text, StringComparison.Ordinal))
            {
                var wait = new pollfd { fd = _master, events = POLLIN };
                _ = poll(&wait, 1, 100);
                if (wait.revents != 0 && read(_master, buffer, 4096) is var length and > 0)
                    _seen.Append(Encoding.UTF8.GetString(buffer, (int)length));
                Assert.True(Environment.TickCount64 < until, $"'{text}' did not come; there was: {_seen}");
            }
        }

        internal void Kill(int signal) => Assert.Equal(0, kill(_process.Id, signal));

        internal void CloseMaster()
        {
            _ = close(_master);
            _master = -1;
        }

        internal void ExpectExit(int code, bool restored = true)
        {
            Assert.True(_process.WaitForExit(Patience), $"It did not end; there was: {_seen}");
            Assert.Equal(code, _process.ExitCode);
            if (!restored)
                return;
            termios now;
            Assert.Equal(0, tcgetattr(_slave, &now));
            termios before = _before;
            Assert.True(new ReadOnlySpan<byte>(&before, sizeof(termios)).SequenceEqual(new ReadOnlySpan<byte>(&now, sizeof(termios))), "The terminal's mode is another.");
        }

        public void Dispose()
        {
            if (!_process.HasExited)
                _process.Kill();
            _process.Dispose();
            _ = close(_slave);
            if (_master >= 0)
                _ = close(_master);
        }
    }
}
