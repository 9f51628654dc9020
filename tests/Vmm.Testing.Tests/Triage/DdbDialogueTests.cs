using System.Globalization;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Testing.Triage;

namespace Vmm.Testing.Tests.Triage;

/// <summary>OpenBSD's debugger is asked, and its answers are kept, however its text arrives.</summary>
public sealed class DdbDialogueTests
{
    private static readonly string[] s_script =
    [
        "set $lines = 0", "set $maxwidth = 0", "show panic", "trace", "show registers", "show proc", "ps", "show all locks", "show malloc", "show all pools",
    ];

    private static readonly string s_session = GoldenConsole.Resource("openbsd-witness.txt").TrimEnd('\n');

    /// <summary>What the session says, read in another way than the dialogue does it.</summary>
    private static readonly TriageAnswer[] s_expected =
    [
        .. s_session.Split("\nddb{").Skip(1).Select(part => part[4..]).Where(part => part.Length > 0)
            .Select(part => part.Split('\n', 2)).Select(parts => new TriageAnswer(parts[0], parts.Length > 1 ? parts[1] + "\n" : "")),
    ];

    [Fact]
    public void The_seed_has_fourteen_answers_in_order()
    {
        string[] commands = [.. s_script, "machine ddbcpu 0", "trace", "machine ddbcpu 1", "trace"];
        Assert.Equal(commands, s_expected.Select(answer => answer.Command));
        (IReadOnlyList<TriageAnswer> answers, _) = Feed(s_session, _ => int.MaxValue);
        Assert.Equal(s_expected, answers);
        Assert.Equal("*cpu0: witness_warn\n", answers[2].Text);
        Assert.StartsWith("db_enter() at db_enter+0x18", answers[3].Text, StringComparison.Ordinal);
        Assert.Equal("Invalid cpu 0\n", answers[10].Text);
        Assert.StartsWith("x86_ipi_db(", answers[13].Text, StringComparison.Ordinal);
        Assert.EndsWith("count: -11\n", answers[13].Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Byte_by_byte_the_same_is_typed_that_was_typed()
    {
        (IReadOnlyList<TriageAnswer> answers, List<string> typed) = Feed(s_session, _ => 1);
        Assert.Equal(s_expected, answers);
        // The first prompt of the session got an empty line; so the first command comes again.
        Assert.Equal(["set $lines = 0", .. s_expected.Select(answer => answer.Command), "machine ddbcpu 2"], typed);
    }

    [Fact]
    public void Line_by_line() => Assert.Equal(s_expected, Feed(s_session, at => s_session.IndexOf('\n', at) is var end and >= 0 ? end + 1 - at : int.MaxValue).Answers);

    [Fact]
    public void In_any_pieces() =>
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            var random = new Random(seed);
            int most = 1 << random.Next(1, 12);
            Assert.Equal(s_expected, Feed(s_session, _ => random.Next(1, most + 1)).Answers);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(100));

    /// <summary>Whatever is cut off at whatever place: what was there is kept, and does not depend on the pieces.</summary>
    [Fact]
    public void Half_an_answer_is_kept() =>
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            var random = new Random(seed);
            string session = s_session[..random.Next(s_session.Length)];
            IReadOnlyList<TriageAnswer> whole = Feed(session, _ => int.MaxValue).Answers;
            Assert.Equal(whole, Feed(session, _ => random.Next(1, 100)).Answers);
            Assert.Equal(whole, Feed(session, _ => 1).Answers);
            Assert.Equal(s_expected.Take(whole.Count).SkipLast(1), whole.SkipLast(1));
            if (whole.Count > 0)
            {
                Assert.Equal(s_expected[whole.Count - 1].Command, whole[^1].Command);
                Assert.StartsWith(whole[^1].Text.TrimEnd('\n'), s_expected[whole.Count - 1].Text, StringComparison.Ordinal);
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(60));

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 1)]
    [InlineData(2, 0)]
    [InlineData(2, 1)]
    [InlineData(4, 2)]
    [InlineData(12, 11)]
    public void Every_cpu_is_asked_once(int cpus, int first)
    {
        var machine = new Machine(cpus, cpus == 0 ? -1 : Math.Min(first, cpus - 1));
        DdbDialogue dialogue = machine.Talk();
        List<string> commands = [.. s_script];
        for (int cpu = 0; cpu < cpus; cpu++)
            commands.AddRange([$"machine ddbcpu {cpu}", "trace"]);
        if (cpus > 0)
            commands.Add($"machine ddbcpu {cpus}");
        Assert.Equal(commands, machine.Heard);
        Assert.Equal(commands, dialogue.Answers.Select(answer => answer.Command));
        Assert.Equal(commands.Select(machine.AnswerTo), dialogue.Answers.Select(answer => answer.Text));
        Assert.True(dialogue.IsActive);
        Assert.True(dialogue.IsDone);
    }

    [Fact]
    public void Before_the_first_prompt_nothing_is_typed()
    {
        var dialogue = new DdbDialogue();
        dialogue.Line("panic: witness_warn");
        foreach (string text in (string[])["", "d", "ddb", "ddb{", "ddb{0}", "ddb{0}>", "login: ", "ddb{x}> ", "ddb{}> ", "addb", "ddb{0}> s", "# "])
            Assert.Null(dialogue.Prompt(text));
        Assert.False(dialogue.IsActive);
        Assert.Equal("set $lines = 0", dialogue.Prompt("ddb{0}> "));
        Assert.True(dialogue.IsActive);
        Assert.Null(dialogue.Prompt("ddb{0}> "));
        Assert.Null(dialogue.Prompt("ddb{0}> s"));
        Assert.False(dialogue.IsDone);
        dialogue.End();
        Assert.True(dialogue.IsDone);
        Assert.Empty(dialogue.Answers);
        Assert.Null(dialogue.Prompt("ddb{0}> "));
    }

    [Fact]
    public void The_pager_is_told_to_go_on_and_leaves_nothing_behind()
    {
        var dialogue = new DdbDialogue();
        Assert.Equal("", dialogue.Prompt("--db_more--"));
        Assert.Null(dialogue.Prompt("--db_more--"));
        Assert.Null(dialogue.Prompt("--db_more--" + new string('\b', 11) + new string(' ', 11)));
        dialogue.Line("--db_more--" + new string('\b', 11) + new string(' ', 11) + new string('\b', 11) + "f() at f+0x1");
        Assert.Equal("set $lines = 0", dialogue.Prompt("ddb> "));
        dialogue.Line("ddb> set $lines = 0");
        Assert.Equal("set $maxwidth = 0", dialogue.Prompt("ddb> "));
        dialogue.Line("ddb> trace");
        dialogue.Line("one");
        Assert.Equal("", dialogue.Prompt("--db_more--"));
        dialogue.Line("--db_more--" + new string('\b', 11) + new string(' ', 11) + new string('\b', 11) + "two");
        dialogue.Line("--db_more--           three");
        dialogue.Line("--More--");
        dialogue.End();
        Assert.Equal(new TriageAnswer("trace", "one\ntwo\nthree\n"), dialogue.Answers[^1]);
    }

    [Theory]
    // Another CPU prints behind the prompt, and the echo comes on a line of its own.
    [InlineData("ddb{0}> splassert: rtm_output: want 2 have 0\nshow panic\nthe answer\nddb{0}> ", "show panic", "the answer\n")]
    [InlineData("ddb{0}> \nurtwn0: timeout\nshow panic\nthe answer\nddb{0}> ", "show panic", "the answer\n")]
    // The same behind the echo.
    [InlineData("ddb{0}> show panicurtwn0: timeout\nthe answer\nddb{0}> ", "show panic", "urtwn0: timeout\nthe answer\n")]
    // The terminal's width breaks the echo.
    [InlineData("ddb{0}> show all lo\ncks\nthe answer\nddb{0}> ", "show all locks", "the answer\n")]
    [InlineData("ddb{0}> show all\nlocks\nthe answer\nddb{0}> ", "show all locks", "the answer\n")]
    [InlineData("ddb{0}> machine\nddbcpu 3\nthe answer\nddb{3}> ", "machine ddbcpu 3", "the answer\n")]
    // The next prompt comes on the answer's last line.
    [InlineData("ddb{0}> show panic\nthe answerddb{0}> ", "show panic", "the answer\n")]
    // Somebody else asks.
    [InlineData("ddb{0}> show uvmexp\nthe answer\nddb{0}> ", "show uvmexp", "the answer\n")]
    [InlineData("ddb{0}> ps /o\nthe answer\nddb{0}> ", "ps /o", "the answer\n")]
    [InlineData("ddb{0}> trace /p 0t123\nddb{0}> ", "trace /p 0t123", "")]
    // No echo at all: what would have been typed.
    [InlineData("ddb{0}> \nthe answer\nddb{0}> ", "set $lines = 0", "the answer\n")]
    [InlineData("ddb> ps\nddb>\nddb> ", "ps", "")]
    [InlineData("ddb> ddb> ps\nthe answer\nddb> ", "ps", "the answer\n")]
    public void Noise_and_broken_lines_do_not_lead_astray(string session, string command, string text)
    {
        for (int seed = 0; seed < 50; seed++)
        {
            var random = new Random(seed);
            (IReadOnlyList<TriageAnswer> answers, _) = Feed(session, _ => seed == 0 ? int.MaxValue : seed == 1 ? 1 : random.Next(1, 20));
            Assert.Equal([new TriageAnswer(command, text)], answers);
        }
    }

    [Fact]
    public void What_nothing_comes_back_for_is_typed_again_and_then_left_out()
    {
        var dialogue = new DdbDialogue();
        var typed = new List<string?>();
        for (int i = 0; i < 7; i++)
        {
            typed.Add(dialogue.Prompt("ddb{0}> "));
            dialogue.Line("ddb{0}> ");
        }

        Assert.Equal(["set $lines = 0", "set $lines = 0", "set $lines = 0", "set $maxwidth = 0", "set $maxwidth = 0", "set $maxwidth = 0", "show panic"], typed);
    }

    [Fact]
    public void A_deaf_debugger_is_left_alone_in_the_end()
    {
        var dialogue = new DdbDialogue();
        int prompts = 0;
        for (; !dialogue.IsDone && prompts < 100_000; prompts++)
        {
            dialogue.Prompt("ddb{0}> ");
            dialogue.Line("ddb{0}> ");
        }

        Assert.InRange(prompts, 10, 5000);
        Assert.Empty(dialogue.Answers);
    }

    [Fact]
    public void Answers_are_bounded()
    {
        var dialogue = new DdbDialogue();
        string[] long2 = [new('x', 10), new('x', 20_000)];
        long before = GC.GetTotalMemory(true);
        for (int answer = 0; answer < 3000; answer++)
        {
            dialogue.Line("ddb{0}> ps");
            for (int line = 0; line < (answer < 20 ? 4100 : 3); line++)
                dialogue.Line(long2[answer % 2]);
        }

        long held = GC.GetTotalMemory(true) - before;
        dialogue.End();
        Assert.InRange(dialogue.Answers.Count, 100, 1024);
        Assert.All(dialogue.Answers, answer =>
        {
            Assert.InRange(Encoding.UTF8.GetByteCount(answer.Text), 0, 256 * 1024);
            Assert.InRange(answer.Text.Count(c => c == '\n'), 0, 4000);
            Assert.All(answer.Text.Split('\n'), line => Assert.InRange(line.Length, 0, 8 * 1024));
        });
        Assert.InRange(dialogue.Answers.Sum(answer => (long)Encoding.UTF8.GetByteCount(answer.Text)), 1024 * 1024, 4 * 1024 * 1024);
        Assert.True(held < 24L * 1024 * 1024, $"{held} bytes are held.");
    }

    [Fact]
    public void Nonsense_is_survived_and_the_pieces_do_not_matter() =>
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            var random = new Random(seed);
            string session = Nonsense(random);
            IReadOnlyList<TriageAnswer> whole = Feed(session, _ => int.MaxValue).Answers;
            AssertSame(session, whole, Feed(session, _ => random.Next(1, 50)).Answers);
            AssertSame(session, whole, Feed(session, _ => 1).Answers);
            Assert.All(whole, answer => Assert.True(answer.Text.Length == 0 || answer.Text[^1] == '\n'));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));

    private static void AssertSame(string session, IReadOnlyList<TriageAnswer> whole, IReadOnlyList<TriageAnswer> pieces) =>
        Assert.True(whole.SequenceEqual(pieces), $"{System.Text.Json.JsonSerializer.Serialize(session)}\n{string.Join('\n', whole)}\n--\n{string.Join('\n', pieces)}");

    /// <summary>As who watches a console feeds it: lines as they are finished, and after each piece what is not.</summary>
    private static (IReadOnlyList<TriageAnswer> Answers, List<string> Typed) Feed(string session, Func<int, int> piece)
    {
        var dialogue = new DdbDialogue();
        var typed = new List<string>();
        int line = 0;
        for (int at = 0; at < session.Length;)
        {
            int end = (int)Math.Min(session.Length, (long)at + piece(at));
            for (int newline = session.IndexOf('\n', at, end - at); newline >= 0; newline = session.IndexOf('\n', line, end - line))
            {
                dialogue.Line(session[line..newline]);
                line = newline + 1;
            }

            if (line < end && dialogue.Prompt(session[line..end]) is string command)
                typed.Add(command);
            at = end;
        }

        dialogue.End();
        return (dialogue.Answers, typed);
    }

    private static string Nonsense(Random random)
    {
        string[] parts = ["ddb{0}> ", "ddb> ", "ddb{1}>", "\n", "\n", "trace", "ps", "show all", " locks", "machine ddbcpu ", "0", "1", "Invalid cpu 1", "--db_more--", "--More--", "           ",
            "\b", "text", "é", "\ud83d", "set $lines = 0", "ddb{", "}> ", "show panic", " ", new string('y', 8200)];
        var text = new StringBuilder();
        for (int i = random.Next(60); i >= 0; i--)
            text.Append(parts[random.Next(random.Next(300) == 0 ? parts.Length : parts.Length - 1)]);
        return text.ToString();
    }

    /// <summary>A machine that stopped in the debugger: it echoes, answers, and changes CPUs.</summary>
    private sealed class Machine(int cpus, int cpu)
    {
        private int _cpu = cpu;

        public List<string> Heard { get; } = [];

        private string Prompt => _cpu < 0 ? "ddb> " : string.Create(CultureInfo.InvariantCulture, $"ddb{{{_cpu}}}> ");

        private readonly Queue<string> _answers = new();

        public string AnswerTo(string command) => _answers.Dequeue();

        public DdbDialogue Talk()
        {
            var dialogue = new DdbDialogue();
            for (int i = 0; i < 1000; i++)
            {
                string prompt = Prompt;
                string? command = null;
                for (int length = 1; length <= prompt.Length; length++)
                {
                    Assert.Null(command);
                    command = dialogue.Prompt(prompt[..length]);
                }

                if (command == null)
                    return dialogue;
                Heard.Add(command);
                string answer = Answer(command);
                _answers.Enqueue(answer);
                Assert.Null(dialogue.Prompt(prompt + command));
                dialogue.Line(prompt + command);
                foreach (string line in answer.Split('\n').SkipLast(1))
                {
                    Assert.Null(dialogue.Prompt(line));
                    dialogue.Line(line);
                }
            }

            throw new InvalidOperationException("It never ends.");
        }

        private string Answer(string command)
        {
            if (!command.StartsWith("machine ddbcpu ", StringComparison.Ordinal))
                return command.StartsWith("set ", StringComparison.Ordinal) ? "" : $"{command} on {_cpu}\nof {cpus}\n";
            int wanted = int.Parse(command["machine ddbcpu ".Length..], CultureInfo.InvariantCulture);
            if (wanted == _cpu || wanted >= cpus)
                return $"Invalid cpu {wanted}\n";
            _cpu = wanted;
            return "Stopped at      x86_ipi_db+0x1a:        addq    $0x8,%rsp\n";
        }
    }
}
