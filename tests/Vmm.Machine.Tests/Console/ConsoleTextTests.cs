using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Machine.Console;

namespace Vmm.Machine.Tests.Console;

public sealed class ConsoleTextTests
{
    [Theory]
    [InlineData("a\r\nb\n", "a|b")]
    [InlineData("[\u001b[0;32m  OK  \u001b[0m] Started.\r\n", "[  OK  ] Started.")]
    [InlineData("\u001b]0;title\u0007x\n", "x")]
    [InlineData("\u001b]0;title\u001b\\x\n", "x")]
    [InlineData("\u001b(Bx\u001b=y\u001bcz\n", "xyz")]
    [InlineData("\u001b[31\nx\n", "|x")]
    [InlineData("\u001b\nx\n", "|x")]
    [InlineData("\u001b]never ends\nx\n", "|x")]
    [InlineData("tab\there\u0000\u0008\u007f\n", "tab\there")]
    [InlineData("ümläut €\n", "ümläut €")]
    [InlineData("no end", "no end")]
    public void Bytes_become_lines(string written, string expected) =>
        Assert.Equal(expected, string.Join('|', Lines(Encoding.UTF8.GetBytes(written), [])));

    [Fact]
    public void What_is_no_text_is_replaced() => Assert.Equal(["a\ufffdb"], Lines([(byte)'a', 0xFF, (byte)'b', (byte)'\n'], []));

    [Fact]
    public void A_line_without_an_end_is_broken_where_it_gets_too_long()
    {
        List<string> lines = Lines([.. Enumerable.Repeat((byte)'x', (3 * ConsoleText.MaximumLine) + 5)], []);
        Assert.Equal([ConsoleText.MaximumLine, ConsoleText.MaximumLine, ConsoleText.MaximumLine, 5], lines.Select(line => line.Length));
    }

    [Fact]
    public void How_the_bytes_were_cut_does_not_matter()
    {
        Gen<byte> one = Gen.Frequency((6, Gen.Choose(32, 126).Select(c => (byte)c)), (2, Gen.Elements((byte)'\n', (byte)'\r', (byte)0x1B, (byte)'[', (byte)']', (byte)'m', (byte)7)), (2, Gen.Choose(0, 255).Select(c => (byte)c)));
        Prop.ForAll(
            one.ArrayOf().ToArbitrary(), Gen.Choose(1, 9).ArrayOf().ToArbitrary(),
            (bytes, cuts) => Lines(bytes, []).SequenceEqual(Lines(bytes, cuts))).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void An_unfinished_line_is_told_as_it_grows()
    {
        var heard = new Heard();
        var text = new ConsoleText();
        text.Append("log"u8, default, heard);
        text.Append("in: "u8, default, heard);
        text.Append("root\nx"u8, default, heard);
        Assert.Equal(["log", "login: ", "x"], heard.Unfinished);
        Assert.Equal(["login: root"], heard.Lines);
    }

    private static List<string> Lines(byte[] bytes, int[] cuts)
    {
        var heard = new Heard();
        var text = new ConsoleText();
        int at = 0;
        foreach (int cut in cuts)
        {
            int length = Math.Min(cut, bytes.Length - at);
            text.Append(bytes.AsSpan(at, length), default, heard);
            at += length;
        }
        text.Append(bytes.AsSpan(at), default, heard);
        text.End(default, heard);
        return heard.Lines;
    }

    private sealed class Heard : IConsoleListener
    {
        internal List<string> Lines { get; } = [];

        internal List<string> Unfinished { get; } = [];

        public void Line(TimeSpan at, string line) => Lines.Add(line);

        void IConsoleListener.Unfinished(TimeSpan at, string text) => Unfinished.Add(text);
    }
}
