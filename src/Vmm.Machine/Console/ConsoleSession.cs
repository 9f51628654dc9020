using System.Text;
using System.Text.RegularExpressions;
using Vmm.Core;

namespace Vmm.Machine.Console;

/// <summary>
/// A guest's console in the hands of a program: waits for what the guest writes, and types. Patterns are matched against one line at a time, also
/// against the last one while it grows (a prompt has no end); a wait goes on where the one before it matched. Any thread; waits may overlap, and each
/// then begins where the last match before it was.
/// </summary>
public sealed class ConsoleSession : IConsoleListener
{
    /// <summary>Characters that are kept; what is older is forgotten.</summary>
    public const int Capacity = 16 * 1024 * 1024;

    private readonly Func<CapturedConsole?> _console;
    private readonly IConsoleListener? _also;

    // Guards all of the below; a leaf.
    private readonly object _gate = new();
    private readonly List<string> _lines = [];
    private readonly List<Wait> _waits = [];
    private string _unfinished = "";
    private long _dropped;
    private int _kept;
    private long _line;
    private int _column;
    private Exception? _ended;

    internal ConsoleSession(Func<CapturedConsole?> console, IConsoleListener? also)
    {
        _console = console;
        _also = also;
    }

    /// <summary>Everything that the guest wrote, as text; the last <see cref="Capacity"/> characters of it.</summary>
    public string Text
    {
        get
        {
            lock (_gate)
            {
                var text = new StringBuilder(_kept + _unfinished.Length);
                foreach (string line in _lines)
                    text.Append(line).Append('\n');
                return text.Append(_unfinished).ToString();
            }
        }
    }

    /// <summary>Waits until the guest writes a line, or the beginning of one, that a pattern matches.</summary>
    /// <param name="pattern">A regular expression, matched in time that is linear in the text where it has no look-around and no back-references.</param>
    /// <param name="cancel">Gives up.</param>
    /// <returns>The match.</returns>
    /// <exception cref="ArgumentException">The pattern is none.</exception>
    /// <exception cref="VmmException">The machine has ended without it.</exception>
    public Task<Match> WaitForAsync(string pattern, CancellationToken cancel = default) => WaitForAsync(ConsolePattern.Compile(pattern), cancel);

    /// <summary>The same, for a pattern that is made already.</summary>
    /// <inheritdoc cref="WaitForAsync(string, CancellationToken)"/>
    public Task<Match> WaitForAsync(Regex pattern, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(pattern);
        Wait wait;
        lock (_gate)
        {
            wait = new Wait(pattern) { Line = _line, Column = _column };
            if (Find(wait) is { } match)
                return Task.FromResult(match);
            if (_ended != null)
                return Task.FromException<Match>(Missing(pattern, _ended));
            _waits.Add(wait);
        }
        if (!cancel.CanBeCanceled)
            return wait.Result.Task;
        CancellationTokenRegistration registration = cancel.Register(() =>
        {
            lock (_gate)
                _waits.Remove(wait);
            wait.Result.TrySetCanceled(cancel);
        });
        // A registration that outlives its wait would keep the machine's text for as long as the token lives.
        _ = wait.Result.Task.ContinueWith(_ => registration.Dispose(), CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        return wait.Result.Task;
    }

    /// <summary>Types a text, as UTF-8; a line's end is <c>\n</c>, as the Enter key's is on a serial line <c>\r</c>.</summary>
    /// <returns>Done when the text is on its way; the guest takes it as fast as it can.</returns>
    /// <exception cref="VmmException">The machine's console is not in this program's hands.</exception>
    public Task SendAsync(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        (_console() ?? throw VmmException.Configuration("There is no console to type at: this machine's has another end; leave --serial (or --console) at tty."))
            .Type(Encoding.UTF8.GetBytes(text));
        return Task.CompletedTask;
    }

    void IConsoleListener.Line(TimeSpan at, string line)
    {
        lock (_gate)
        {
            _lines.Add(line);
            _unfinished = "";
            _kept += line.Length + 1;
            Serve();
            Forget();
        }
        _also?.Line(at, line);
    }

    void IConsoleListener.Unfinished(TimeSpan at, string text)
    {
        lock (_gate)
        {
            _unfinished = text;
            Serve();
        }
        _also?.Unfinished(at, text);
    }

    /// <summary>No more comes.</summary>
    internal void End(Exception why)
    {
        List<Wait> left;
        lock (_gate)
        {
            _ended ??= why;
            left = [.. _waits];
            _waits.Clear();
        }
        foreach (Wait wait in left)
            wait.Result.TrySetException(Missing(wait.Pattern, why));
    }

    private static VmmException Missing(Regex pattern, Exception why) =>
        VmmException.Host($"The console did not show /{pattern}/ before the machine ended. {why.Message}".TrimEnd());

    private void Serve()
    {
        for (int i = 0; i < _waits.Count;)
        {
            Wait wait = _waits[i];
            if (Find(wait) is not { } match)
            {
                i++;
                continue;
            }
            _waits.RemoveAt(i);
            wait.Result.TrySetResult(match);
        }
    }

    /// <summary>Looks on where this wait has come to. A match is where later waits begin. With the lock held.</summary>
    private Match? Find(Wait wait)
    {
        if (wait.Line < _dropped)
            (wait.Line, wait.Column) = (_dropped, 0);
        while (true)
        {
            int index = (int)(wait.Line - _dropped);
            bool finished = index < _lines.Count;
            string text = finished ? _lines[index] : _unfinished;
            // An empty line that has not begun is no line.
            if (!finished && text.Length == 0)
                return null;
            if (ConsolePattern.Match(wait.Pattern, text, Math.Min(wait.Column, text.Length)) is { } match)
            {
                (_line, _column) = (wait.Line, match.Index + match.Length);
                return match;
            }
            if (!finished)
                return null;
            (wait.Line, wait.Column) = (wait.Line + 1, 0);
        }
    }

    private void Forget()
    {
        if (_kept <= Capacity + (Capacity / 4))
            return;
        int count = 0;
        while (_kept > Capacity)
            _kept -= _lines[count++].Length + 1;
        _lines.RemoveRange(0, count);
        _dropped += count;
    }

    private sealed record Wait(Regex Pattern)
    {
        // Where it looks next: the line's number since the first one of all, and the character in it.
        internal long Line { get; set; }

        internal int Column { get; set; }

        internal TaskCompletionSource<Match> Result { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
