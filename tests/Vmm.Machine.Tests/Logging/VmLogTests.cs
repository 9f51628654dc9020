using System.Text.Json;
using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Machine.Logging;

namespace Vmm.Machine.Tests.Logging;

public sealed class VmLogTests : IDisposable
{
    private readonly string _file = Path.Combine(Path.GetTempPath(), $"vmm-log-{Guid.NewGuid():N}");

    public void Dispose() => File.Delete(_file);

    [Fact]
    public void A_text_file_has_one_line_per_event_of_its_level()
    {
        using (VmLog log = VmLog.Open(new LogConfig(LogLevel.Info, _file)))
        {
            log.Info("braces {stay} as they are\nand lines are one");
            log.Debug("not this");
            log.Error("bad", new InvalidOperationException("why"));
        }

        string[] lines = File.ReadAllLines(_file);
        Assert.Equal(2, lines.Length);
        Assert.Matches(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info braces \{stay\} as they are and lines are one$", lines[0]);
        Assert.Contains("error bad: System.InvalidOperationException: why", lines[1], StringComparison.Ordinal);
    }

    [Fact]
    public void A_json_file_has_one_object_per_line()
    {
        using (VmLog log = VmLog.Open(new LogConfig(LogLevel.Trace, _file, LogFormat.Json)))
            log.Trace("a \"quoted\"\nline");

        JsonElement line = JsonDocument.Parse(Assert.Single(File.ReadAllLines(_file))).RootElement;
        Assert.Equal("trace", line.GetProperty("level").GetString());
        Assert.Equal("a \"quoted\"\nline", line.GetProperty("message").GetString());
    }

    [Fact]
    public void A_log_file_that_cannot_be_written_is_a_mistake_in_the_arguments()
    {
        var error = Assert.Throws<VmmException>(() => VmLog.Open(new LogConfig(File: "/nowhere/at/all")));
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        Assert.StartsWith("--log-file: cannot write to '/nowhere/at/all'", error.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists("/nowhere"));
    }

    [Fact]
    public void A_guest_cannot_flood_the_log()
    {
        var clock = new ManualClock();
        using (VmLog log = VmLog.Open(new LogConfig(LogLevel.Warn, _file)))
        {
            var limited = new RateLimitedLog(log, LogLevel.Warn, burst: 3, secondsPerLine: 10, clock);
            for (int i = 0; i < 1000; i++)
                limited.Write(i, static number => $"line {number}");
            clock.Seconds += 10;
            limited.Write(1000, static number => $"line {number}");
            limited.Write(1001, static number => $"line {number}");
            limited.Flush();
            limited.Flush();
        }

        string[] messages = [.. File.ReadAllLines(_file).Select(line => line[(line.IndexOf(" warn ", StringComparison.Ordinal) + 6)..])];
        Assert.Equal(["line 0", "line 1", "line 2", "997 similar lines suppressed", "line 1000", "1 similar lines suppressed"], messages);
    }

    [Fact]
    public void A_line_that_is_left_out_allocates_nothing()
    {
        Func<int, string> line = static number => $"{number}";
        var limited = new RateLimitedLog(VmLog.Quiet, LogLevel.Info);
        using VmLog log = VmLog.Open(new LogConfig(LogLevel.Warn, _file));
        var exhausted = new RateLimitedLog(log, LogLevel.Warn, burst: 1, secondsPerLine: 1e6);
        exhausted.Write(0, line);
        exhausted.Write(0, line);
        limited.Write(0, line);
        long before = ThreadAllocations.Start();
        for (int i = 0; i < 1000; i++)
        {
            limited.Write(i, line);
            exhausted.Write(i, line);
        }

        Assert.Equal(0, ThreadAllocations.Since(before));
    }

    private sealed class ManualClock : TimeProvider
    {
        public double Seconds { get; set; }

        public override long TimestampFrequency => 1000;

        public override long GetTimestamp() => (long)(Seconds * 1000);
    }
}
