using System.Collections.Concurrent;
using Vmm.Core.Sockets;
using Vmm.Machine.BackEnds;

namespace Vmm.Machine.Tests.BackEnds;

/// <summary>Programs that serve devices and are started for that.</summary>
public sealed class BackEndProcessTests
{
    private readonly ConcurrentQueue<string> _said = new();

    [Fact]
    public void What_it_prints_is_told_under_the_devices_name_and_it_is_started_again_when_it_ends()
    {
        using BackEndProcess process = Start("sh -c 'echo hello; echo trouble >&2; exit 3' # {socket}", restarts: true);
        WaitFor("fs0: hello");
        WaitFor("fs0: trouble");
        WaitFor("fs0: its back-end ended with exit code 3 and is started again");
        WaitUntil(() => _said.Count(line => line == "fs0: hello") >= 2, "it to be started again");
    }

    [Fact]
    public void Without_reconnecting_it_is_started_once()
    {
        using BackEndProcess process = Start("true # {socket}", restarts: false);
        WaitFor("fs0: its back-end ended with exit code 0");
        Thread.Sleep(300);
        Assert.Single(_said);
    }

    [Fact]
    public void Its_descriptor_is_a_socket_that_can_be_connected_to()
    {
        using BackEndProcess process = Start("sh -c 'readlink /proc/self/fd/{fd}; exec sleep 1000'", restarts: false);
        WaitUntil(() => _said.Any(line => line.Contains("socket:[", StringComparison.Ordinal)), "the name of the descriptor");
        using UnixStream? stream = UnixStream.TryConnect(process.Socket, out int error);
        Assert.Equal(0, error);
    }

    [Fact]
    public void Who_was_not_accepted_by_one_is_not_left_to_the_next()
    {
        using BackEndProcess process = Start("sh -c 'echo up; sleep 0.5' # {fd}", restarts: true);
        WaitFor("fs0: up");
        using UnixStream? stream = UnixStream.TryConnect(process.Socket, out int error);
        Assert.Equal(0, error);
        WaitUntil(() => stream!.HasInput, "the end of a connection that nobody has accepted");
        // The next one has a socket of its own.
        UnixStream? another = null;
        WaitUntil(() => (another = UnixStream.TryConnect(process.Socket, out _)) != null, "another one to connect to");
        another!.Dispose();
    }

    [Fact]
    public void One_that_cannot_be_started_again_is_tried_again()
    {
        using BackEndProcess process = Start("sh -c 'sleep 0.3; exit 3' # {fd}", restarts: true);
        string directory = Path.GetDirectoryName(process.Socket)!;
        Directory.Delete(directory, recursive: true);
        WaitUntil(() => _said.Any(line => line.Contains("It is tried again", StringComparison.Ordinal)), "the failure");
        // Time for some more.
        Thread.Sleep(1_500);
        Assert.Equal(1, _said.Count(line => line.Contains("It is tried again", StringComparison.Ordinal)));
        Directory.CreateDirectory(directory);
        WaitUntil(() => _said.Count(line => line.Contains("ended with exit code 3", StringComparison.Ordinal)) >= 2, "its second end");
    }

    [Fact]
    public void What_one_listened_at_is_not_in_the_way_of_the_next()
    {
        using BackEndProcess process = Start("sh -c 'test -e {socket} && echo in the way; touch {socket}; sleep 0.2'", restarts: true);
        WaitUntil(() => _said.Count(line => line.Contains("ended with", StringComparison.Ordinal)) >= 2, "its second end");
        Assert.DoesNotContain("fs0: in the way", _said);
    }

    [Theory]
    [InlineData("sleep 1000 # {socket}")]
    [InlineData("sh -c 'trap \"\" TERM; echo ready; while :; do sleep 1; done' # {socket}")]
    public void At_the_end_it_is_ended_and_nothing_is_left(string command)
    {
        BackEndProcess process = Start(command, restarts: true);
        string directory = Path.GetDirectoryName(process.Socket)!;
        Assert.True(Directory.Exists(directory));
        process.Dispose();
        Assert.False(Directory.Exists(directory));
        Assert.DoesNotContain(_said, line => line.Contains("ended with", StringComparison.Ordinal));
    }

    [Fact]
    public void A_line_without_an_end_is_cut()
    {
        using BackEndProcess process = Start("sh -c 'head -c 100000 /dev/zero | tr \"\\0\" x; echo; sleep 100' # {socket}", restarts: false);
        WaitUntil(() => !_said.IsEmpty, "the line");
        Assert.All(_said, line => Assert.InRange(line.Length, 1, 1100));
    }

    [Fact]
    public void A_line_that_never_ends_is_told_without_being_kept()
    {
        using BackEndProcess process = Start("sh -c 'head -c 1000000 /dev/zero | tr \"\\0\" x; sleep 100' # {socket}", restarts: false);
        WaitUntil(() => !_said.IsEmpty, "the line");
        Thread.Sleep(100);
        Assert.Equal(1000, Assert.Single(_said).Count(letter => letter == 'x'));
    }

    private BackEndProcess Start(string command, bool restarts) => BackEndProcess.Start("fs0", command, restarts, _said.Enqueue);

    private void WaitFor(string line) => WaitUntil(() => _said.Contains(line), line);

    private void WaitUntil(Func<bool> condition, string what)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(30), $"Waited for {what}; it said: {string.Join('\n', _said)}");
            Thread.Sleep(5);
        }
    }
}
