using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;

namespace Vmm.Testing.Tests.Reports;

public sealed class ConsoleLogWriterTests
{
    [Fact]
    public void Each_line_has_its_time_and_is_there_at_once()
    {
        using var directory = new TemporaryDirectory();
        using var log = new ConsoleLogWriter(directory["new/logs"], "boots");
        Assert.Equal(directory["new/logs/boots.console.log"], log.Path);
        log.Line(TimeSpan.FromSeconds(12.3454), "Linux version 6.1");
        Assert.Equal("[   12.345] Linux version 6.1\n", Read(log.Path));
        log.Line(TimeSpan.FromSeconds(12345.6), "a\u001b[31mb\tc\nd\u2028");
        Assert.Equal("[   12.345] Linux version 6.1\n[12345.600] a\uFFFD[31mb\tc\uFFFDd\uFFFD\n", Read(log.Path));
    }

    [Fact]
    public void Bytes_become_lines_with_the_time_of_their_beginning()
    {
        using var directory = new TemporaryDirectory();
        string path;
        using (var log = new ConsoleLogWriter(directory.Path, "x"))
        {
            path = log.Path;
            log.Bytes(TimeSpan.FromSeconds(1), "one\r\ntw"u8);
            log.Bytes(TimeSpan.FromSeconds(2), [.. "o\n\nthr"u8, 0xC3]);
            log.Bytes(TimeSpan.FromSeconds(3), [0xA4]);
            log.Line(TimeSpan.FromSeconds(4), "between");
            log.Bytes(TimeSpan.FromSeconds(5), "login: "u8);
        }

        Assert.Equal("[    1.000] one\n[    1.000] two\n[    2.000] \n[    2.000] thrä\n[    4.000] between\n[    5.000] login: \n", Read(path));
    }

    [Fact]
    public void However_the_bytes_come_the_lines_are_the_same()
    {
        Gen<byte[]> lines = Gen.Frequency((6, Gen.Elements((byte)'a', (byte)'b', (byte)0xC3, (byte)0xA4, (byte)0)), (2, Gen.Constant((byte)'\n')), (1, Gen.Constant((byte)'\r'))).ArrayOf();
        Gen<(byte[] Bytes, int[] Cuts)> cases = from bytes in lines from cuts in Gen.Choose(1, 7).ArrayOf() select (bytes, cuts);
        using var directory = new TemporaryDirectory();
        Prop.ForAll(cases.ToArbitrary(), test =>
        {
            string whole = Log(directory.Path, [test.Bytes]);
            var parts = new List<byte[]>();
            int at = 0;
            foreach (int cut in test.Cuts)
            {
                int end = Math.Min(test.Bytes.Length, at + cut);
                parts.Add(test.Bytes[at..end]);
                at = end;
            }

            parts.Add(test.Bytes[at..]);
            Assert.Equal(whole, Log(directory.Path, [.. parts]));
            string text = Encoding.UTF8.GetString(test.Bytes);
            Assert.Equal(text.Split('\n').Length - (text.Length == 0 || text.EndsWith('\n') ? 1 : 0), whole.Count(c => c == '\n'));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300).WithReplay(20261121, 5));
    }

    [Fact]
    public void A_line_without_end_is_broken()
    {
        using var directory = new TemporaryDirectory();
        byte[] endless = new byte[40_000];
        endless.AsSpan().Fill((byte)'x');
        string log = Log(directory.Path, [endless, "\nnext\n"u8.ToArray()]);
        Assert.Equal([16384, 16384, 40_000 - 32768, 4], log.Split('\n')[..^1].Select(line => line.Length - "[    0.000] ".Length));

        // Broken just at its end: there is no empty line after it.
        log = Log(directory.Path, [endless[..32768], "\nnext\n"u8.ToArray()]);
        Assert.Equal([16384, 16384, 4], log.Split('\n')[..^1].Select(line => line.Length - "[    0.000] ".Length));
    }

    [Fact]
    public void It_ends_at_its_limit_with_a_note()
    {
        using var directory = new TemporaryDirectory();
        string path;
        using (var log = new ConsoleLogWriter(directory.Path, "x", limit: 1000))
        {
            path = log.Path;
            for (int i = 0; i < 500; i++)
                log.Line(TimeSpan.Zero, "äöü 1234567890");
            Assert.EndsWith("[the limit of 1000 bytes is reached; what follows is left out]\n", Read(path), StringComparison.Ordinal);
            Assert.InRange(log.LinesLeftOut, 450, 499);
        }

        Assert.EndsWith("more lines left out]\n", Read(path), StringComparison.Ordinal);
        Assert.InRange(new FileInfo(path).Length, 1000, 1300);
    }

    [Fact]
    public void A_link_in_its_place_leads_nowhere_and_a_bad_place_is_said()
    {
        using var directory = new TemporaryDirectory();
        File.WriteAllText(directory["other"], "mine");
        File.CreateSymbolicLink(directory["x.console.log"], directory["other"]);
        using (var log = new ConsoleLogWriter(directory.Path, "x"))
            log.Line(TimeSpan.Zero, "text");
        Assert.Equal("mine", File.ReadAllText(directory["other"]));
        Assert.Contains("Cannot make the console log", Assert.Throws<VmmException>(() => new ConsoleLogWriter(directory["other"], "x")).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("boots", 1, "boots.console.log")]
    [InlineData("boots", 2, "boots.attempt-2.console.log")]
    [InlineData("v6.1_smp,cpus=2@x+y", 1, "v6.1_smp,cpus=2@x+y.console.log")]
    public void An_ordinary_name_stays_as_it_is(string test, int attempt, string file) => Assert.Equal(file, ConsoleLogName.Of(test, attempt));

    [Theory]
    [InlineData("boots[cpus=2]", "boots_cpus=2_-")]
    [InlineData("../../etc/passwd", "_._.._etc_passwd-")]
    [InlineData("-rf", "_rf-")]
    [InlineData("", "_-")]
    [InlineData("x.attempt-2", "x.attempt-2-")]
    [InlineData("x-0123456789abcdef", "x-0123456789abcdef-")]
    public void Another_has_a_hash(string test, string begin)
    {
        string file = ConsoleLogName.Of(test, 1);
        Assert.StartsWith(begin, file, StringComparison.Ordinal);
        Assert.Matches("-[0-9a-f]{16}\\.console\\.log$", file);
    }

    [Fact]
    public void Names_are_safe_bounded_and_unique()
    {
        Gen<string> name = Gen.OneOf(Samples.Text, Gen.Elements("a", "a.attempt-2", "a_b", "a/b", "a b", "A", new string('x', 300), new string('x', 301)), Samples.Text.Select(text => ConsoleLogName.Safe(text)));
        Prop.ForAll((from one in name from two in name from i in Gen.Choose(1, 3) from j in Gen.Choose(1, 3) select (one, two, i, j)).ToArbitrary(), test =>
        {
            string one = ConsoleLogName.Of(test.one, test.i);
            string two = ConsoleLogName.Of(test.two, test.j);
            Assert.Equal((test.one, test.i) == (test.two, test.j), one == two);
            Assert.Equal(one, ConsoleLogName.Of(test.one, test.i));
            Assert.Matches("^[A-Za-z0-9_+=,@][A-Za-z0-9._+=,@-]*$", one);
            Assert.InRange(Encoding.UTF8.GetByteCount(one), 1, 160);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000).WithReplay(20261121, 5));
    }

    private static string Log(string directory, byte[][] parts)
    {
        string path;
        using (var log = new ConsoleLogWriter(directory, "log"))
        {
            path = log.Path;
            foreach (byte[] part in parts)
                log.Bytes(TimeSpan.Zero, part);
        }

        return Read(path);
    }

    private static string Read(string path)
    {
        using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite));
        return reader.ReadToEnd();
    }
}
