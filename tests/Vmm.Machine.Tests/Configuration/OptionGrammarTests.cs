using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Tests.Configuration;

public sealed class OptionGrammarTests
{
    [Fact]
    public void Fields_lists_and_quotes_are_read()
    {
        IReadOnlyList<OptionField> fields = OptionGrammar.Parse("--x", "a=1,b=[x,\"y, z\"],c=\"q \\\"r\\\" \\\\\",d,e=\"\",f=k=v,g=[]");
        Assert.Equal(["a", "b", "c", "d", "e", "f", "g"], fields.Select(field => field.Key));
        Assert.Equal("1", fields[0].Value);
        Assert.Equal(["x", "y, z"], fields[1].Items!);
        Assert.Equal("q \"r\" \\", fields[2].Value);
        Assert.Null(fields[3].Value);
        Assert.Equal("", fields[4].Value);
        Assert.Equal("k=v", fields[5].Value);
        Assert.Empty(fields[6].Items!);
    }

    [Theory]
    [InlineData("", "the argument is empty")]
    [InlineData("a=1,", "comma at the end")]
    [InlineData("a=1,,b=2", "two commas")]
    [InlineData(",a=1", "two commas, or one at the start")]
    [InlineData("a=1,a=2", "'a' is given twice")]
    [InlineData("a=", "'a' has no value")]
    [InlineData("a=,b=1", "'a' has no value")]
    [InlineData("=1", "expected a key")]
    [InlineData("a=[1,2", "no closing bracket")]
    [InlineData("a=[1,]", "'a' has no value")]
    [InlineData("a=\"x", "no closing quote")]
    [InlineData("a=\"x\\y\"", "a backslash stands only before")]
    [InlineData("a=1]", "expected a comma before")]
    [InlineData("a\"b\"", "write a=value")]
    [InlineData("a=[x\"y\"]", "expected a comma or ]")]
    public void Each_mistake_is_named(string text, string expected)
    {
        var error = Assert.Throws<VmmException>(() => OptionGrammar.Parse("--x", text));
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        Assert.StartsWith("--x: ", error.Message, StringComparison.Ordinal);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_text_that_is_too_long_is_refused() =>
        Assert.Contains("at most", Assert.Throws<VmmException>(() => OptionGrammar.Parse("--x", new string('a', OptionGrammar.MaxLength + 1))).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("plain")]
    [InlineData("")]
    [InlineData("with, comma")]
    [InlineData("\"quoted\" and \\ back")]
    [InlineData("[x]")]
    [InlineData("line\nbreak")]
    public void A_quoted_value_reads_as_itself(string value) =>
        Assert.Equal(value, OptionGrammar.Parse("--x", "k=" + OptionGrammar.Quote(value))[0].Value);

    [Fact]
    public void Text_in_messages_stays_on_one_line_and_short()
    {
        string shown = OptionGrammar.Show("a\nb\x1b[31m" + new string('x', 100));
        Assert.DoesNotContain(shown, char.IsControl);
        Assert.True(shown.Length < 90);
    }
}
