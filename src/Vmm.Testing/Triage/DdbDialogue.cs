using System.Globalization;
using System.Text;

namespace Vmm.Testing.Triage;

/// <summary>
/// The conversation with OpenBSD's kernel debugger, ddb(4), after a crash: what to type at its prompts, and what it answered. What it is fed
/// comes from a guest: everything kept is bounded, and nothing throws. The echo of a command says whose answer follows, so a conversation that
/// somebody else has had (a log) comes out the same. Not safe for several threads at once.
/// </summary>
public sealed class DdbDialogue
{
    /// <summary>The most bytes of UTF-8, and the most lines, of an answer; what is more is left out.</summary>
    internal const int MaximumAnswerBytes = ReportCollector.MaximumBytes;

    /// <summary>The most lines of an answer.</summary>
    internal const int MaximumAnswerLines = ReportCollector.MaximumLines;

    /// <summary>The most answers that are kept.</summary>
    internal const int MaximumAnswers = 1024;

    /// <summary>The most bytes of all answers together.</summary>
    internal const int MaximumBytes = 4 * 1024 * 1024;

    /// <summary>OpenBSD has fewer CPUs than this.</summary>
    private const int MaximumCpus = 512;

    /// <summary>How often a command is typed that nothing comes back for.</summary>
    private const int MaximumTries = 3;

    /// <summary>How many lines may come between a prompt and the echo of what was typed at it.</summary>
    private const int MaximumHeld = 4;

    private const string SwitchCpu = "machine ddbcpu ";
    private const string Trace = "trace";

    private static readonly string[] s_first =
    [
        "set $lines = 0", "set $maxwidth = 0", "show panic", Trace, "show registers", "show proc", "ps", "show all locks", "show malloc", "show all pools",
    ];

    /// <summary>What ddb asks while it still has pages; some consoles show it as other programs have it.</summary>
    private static readonly string[] s_pagers = ["--db_more--", "--More--"];

    private readonly List<TriageAnswer> _answers = [];
    private readonly List<string> _held = [];
    private readonly StringBuilder _text = new();
    private State _state;
    private string _command = "";
    private string _heldEcho = "";
    private string _unfinished = "";
    private string _answeredPager = "";
    private bool _isLineAnswered;
    private bool _hasEnded;
    private int _next;
    private int _typed = -1;
    private int _tries;
    private int _firstCpu = -1;
    private int _lines;
    private int _bytes;
    private int _allBytes;

    private enum State
    {
        /// <summary>At a prompt, or before the first.</summary>
        Waiting,

        /// <summary>Past a prompt's line that did not echo a command.</summary>
        Held,

        /// <summary>Within the answer to a command.</summary>
        Answering,
    }

    /// <summary>Whether a prompt of the debugger has been seen.</summary>
    public bool IsActive { get; private set; }

    /// <summary>Whether everything was asked and answered, or <see cref="End"/> was called.</summary>
    public bool IsDone { get; private set; }

    /// <summary>What was asked and answered so far, in order.</summary>
    public IReadOnlyList<TriageAnswer> Answers => _answers;

    /// <summary>A finished line of the console.</summary>
    /// <param name="line">Its text without newline, carriage return and ANSI sequences; invalid UTF-8 replaced.</param>
    public void Line(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        if (_hasEnded)
            return;
        string text = WithoutPager(ConsoleLine.Clip(line), out bool isPager);
        Take(text, isPager && text.Length == 0);
        _unfinished = "";
        _answeredPager = "";
        _isLineAnswered = false;
    }

    /// <summary>The console's last line has grown, and has no newline yet.</summary>
    /// <param name="unfinishedLine">All of it so far.</param>
    /// <returns>
    /// What to type now, without the newline that ends it: the next command where a prompt waits for one, an empty string where the debugger's pager
    /// waits for a key. Null where nothing is to be typed. A prompt is answered once.
    /// </returns>
    public string? Prompt(string unfinishedLine)
    {
        ArgumentNullException.ThrowIfNull(unfinishedLine);
        if (_hasEnded)
            return null;
        string clipped = ConsoleLine.Clip(unfinishedLine);
        _unfinished = WithoutPager(clipped, out bool isPager);
        if (isPager && clipped != _answeredPager && Array.Exists(s_pagers, pager => clipped.EndsWith(pager, StringComparison.Ordinal)))
        {
            _answeredPager = clipped;
            return "";
        }

        if (_isLineAnswered || !DdbPrompt.Waits(_unfinished))
            return null;
        _isLineAnswered = true;
        ReachPrompt(_unfinished);
        return Next();
    }

    /// <summary>The machine has ended, or it took too long: what is there is kept, half an answer too.</summary>
    public void End()
    {
        if (_hasEnded)
            return;
        if (DdbPrompt.TryParse(_unfinished, out _, out _))
        {
            if (!_isLineAnswered)
                ReachPrompt(_unfinished);
        }
        else if (_unfinished.Length > 0 && IsActive && !DdbPrompt.IsStart(_unfinished))
        {
            TakeText(_unfinished);
        }

        Release();
        Close();
        _hasEnded = true;
        IsDone = true;
    }

    private void Take(string line, bool isNothing)
    {
        if (DdbPrompt.TryParse(line, out _, out int end))
        {
            if (!_isLineAnswered)
                ReachPrompt(line);
            // An empty line at a prompt may leave another one beside it.
            string echo = line[end..].Trim();
            while (DdbPrompt.TryParse(echo, out _, out int next) && DdbPrompt.Find(echo) == 0)
                echo = echo[next..].Trim();
            TakeEcho(echo);
        }
        else if (IsActive && !isNothing)
        {
            TakeText(line);
        }
    }

    /// <summary>A prompt ends the answer before it; what is on its line before it belongs to that.</summary>
    private void ReachPrompt(string line)
    {
        if (!DdbPrompt.TryParse(line, out int cpu, out _))
            return;
        string before = line[..DdbPrompt.Find(line)];
        if (before.Length > 0 && IsActive)
            TakeText(before);
        Release();
        Close();
        if (!IsActive)
        {
            IsActive = true;
            _firstCpu = cpu;
        }

        _state = State.Waiting;
    }

    private void TakeEcho(string echo)
    {
        if (IsKnown(echo))
        {
            Begin(echo);
            return;
        }

        // Something else printed right behind the echo.
        string? start = KnownStart(echo);
        if (start != null)
        {
            Begin(start);
            Append(echo[start.Length..]);
            return;
        }

        _state = State.Held;
        _heldEcho = echo;
        _held.Clear();
    }

    private void TakeText(string line)
    {
        switch (_state)
        {
            case State.Answering:
                Append(line);
                break;
            case State.Held:
                Hold(line);
                break;
            default:
                // The prompt's line is gone, with what was typed at it.
                TakeEcho("");
                Hold(line);
                break;
        }
    }

    /// <summary>
    /// A line after a prompt that no known command stands at: it may be the echo, after something else has printed; or the rest of the echo, from where
    /// the terminal's width has broken it; or the answer to a command that somebody else has thought of.
    /// </summary>
    private void Hold(string line)
    {
        string text = line.Trim();
        if (_held.Count == 0 && _heldEcho.Length > 0)
        {
            foreach (string joined in (ReadOnlySpan<string>)[_heldEcho + text, _heldEcho + " " + text])
            {
                if (text.Length > 0 && IsKnown(joined))
                {
                    Begin(joined);
                    return;
                }
            }
        }

        if (IsKnown(text))
        {
            Begin(text);
            return;
        }

        _held.Add(line);
        if (_held.Count > MaximumHeld)
            Release();
    }

    /// <summary>No echo will come: what was held is an answer.</summary>
    private void Release()
    {
        if (_state != State.Held)
            return;
        string[] lines = [.. _held];
        string command = _heldEcho;
        _state = State.Waiting;
        if (command.Length == 0 && Array.TrueForAll(lines, string.IsNullOrWhiteSpace))
            return;
        Begin(command.Length > 0 ? command : At(_next));
        foreach (string line in lines)
            Append(line);
    }

    private void Begin(string command)
    {
        Close();
        _state = State.Answering;
        _command = command;
        _held.Clear();
        // A command out of order is somebody else's; those that are due stay due.
        int place = Place(command);
        if (place >= _next && (place == _next || place == _typed))
            _next = place + 1;
    }

    /// <summary>Where in the script a command stands; -1 where it stands nowhere. Of the traces, the one that may be due.</summary>
    private int Place(string command)
    {
        if (command == Trace)
        {
            if (_next < s_first.Length)
                return Array.IndexOf(s_first, Trace);
            return At(_typed < _next ? _next : _typed) == Trace ? Math.Max(_typed, _next) : -1;
        }

        return command.StartsWith(SwitchCpu, StringComparison.Ordinal) && IsKnown(command)
            ? s_first.Length + (2 * int.Parse(command.AsSpan(SwitchCpu.Length), NumberStyles.None, CultureInfo.InvariantCulture))
            : Array.IndexOf(s_first, command);
    }

    private void Append(string line)
    {
        int bytes = Encoding.UTF8.GetByteCount(line) + 1;
        if (_lines == MaximumAnswerLines || bytes > MaximumAnswerBytes - _bytes || bytes > MaximumBytes - _allBytes)
            return;
        _lines++;
        _bytes += bytes;
        _allBytes += bytes;
        _text.Append(line).Append('\n');
    }

    private void Close()
    {
        if (_state == State.Answering && _answers.Count < MaximumAnswers)
            _answers.Add(new TriageAnswer(_command, _text.ToString()));
        _state = State.Waiting;
        _text.Clear();
        _lines = 0;
        _bytes = 0;
    }

    /// <summary>What to type at a prompt; null where all was said.</summary>
    private string? Next()
    {
        // What was heard alone moves the script on, as in a log; what nothing comes back for is left out only here.
        int place = Math.Max(_next, _typed);
        if (place == _typed && ++_tries >= MaximumTries)
            place++;
        IsDone = place >= s_first.Length && !HasCpu(place);
        if (IsDone)
            return null;
        if (place != _typed)
            _tries = 0;
        _typed = place;
        return At(place);
    }

    /// <summary>
    /// Whether there is another CPU to look at. The debugger refuses the one that it is on, which is the first prompt's until there was
    /// another, and those that are not there.
    /// </summary>
    private bool HasCpu(int place)
    {
        if (_firstCpu < 0 || place >= s_first.Length + (2 * MaximumCpus) || _answers.Count >= MaximumAnswers)
            return false;
        if (_answers.Count == 0 || !_answers[^1].Command.StartsWith(SwitchCpu, StringComparison.Ordinal))
            return true;
        (string command, string text) = _answers[^1];
        bool isRefused = text.Contains("Invalid cpu", StringComparison.OrdinalIgnoreCase) || text.Contains("No such command", StringComparison.OrdinalIgnoreCase);
        return !isRefused || command == SwitchCpu + _firstCpu.ToString(CultureInfo.InvariantCulture);
    }

    /// <summary>The command at a place of the script: the fixed ones, then two for each CPU.</summary>
    private static string At(int index)
    {
        if (index < s_first.Length)
            return s_first[index];
        int rest = index - s_first.Length;
        return rest % 2 == 1 ? Trace : SwitchCpu + (rest / 2).ToString(CultureInfo.InvariantCulture);
    }

    private static bool IsKnown(string command) =>
        Array.IndexOf(s_first, command) >= 0
        || (command.StartsWith(SwitchCpu, StringComparison.Ordinal)
            && int.TryParse(command.AsSpan(SwitchCpu.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int cpu)
            && cpu < MaximumCpus);

    /// <summary>The known command that a text begins with where something of another kind follows at once; null where none does.</summary>
    private static string? KnownStart(string text)
    {
        string? longest = null;
        foreach (string command in s_first)
        {
            if (text.Length > command.Length && text.StartsWith(command, StringComparison.Ordinal) && char.IsAsciiLetter(text[command.Length])
                && command.Length > (longest?.Length ?? 0))
            {
                longest = command;
            }
        }

        return longest;
    }

    /// <summary>A line without the pager's question, and without the blanks that it is wiped out with.</summary>
    private static string WithoutPager(string line, out bool isPager)
    {
        isPager = false;
        foreach (string pager in s_pagers)
        {
            int at = line.IndexOf(pager, StringComparison.Ordinal);
            if (at < 0)
                continue;
            isPager = true;
            int end = SkipAll(line, at + pager.Length, '\b');
            int blanks = end;
            while (blanks < line.Length && blanks - end < pager.Length && line[blanks] == ' ')
                blanks++;
            // All of them, or as many as have come.
            if (blanks - end == pager.Length || blanks == line.Length)
                end = blanks;
            end = SkipAll(line, end, '\b');
            line = line[..at] + line[end..];
        }

        return line;
    }

    private static int SkipAll(string line, int i, char c)
    {
        while (i < line.Length && line[i] == c)
            i++;
        return i;
    }
}
