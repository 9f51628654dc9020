using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;

namespace Vmm.Machine.Tests.Console;

public sealed class GuestConsoleTests : IDisposable
{
    private readonly string _path = Path.Combine(Path.GetTempPath(), $"vmm-console-{Guid.NewGuid():N}");
    private VmmException? _failure;

    private ConsoleEvents Events => new(_ => { }, error => _failure = error);

    public void Dispose()
    {
        File.Delete(_path);
    }

    [Fact]
    public void A_file_gets_every_byte_of_100_MB_and_the_report_the_last_lines()
    {
        byte[] chunk = new byte[64 * 1024];
        new Random(1).NextBytes(chunk);
        using var expected = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        string last;
        using (GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.File, _path), Events, input: false))
        {
            console.Start(null);
            for (int i = 0; i < 1600; i++)
            {
                // Odd lengths, so that the ring's end falls anywhere.
                ReadOnlySpan<byte> data = chunk.AsSpan(0, chunk.Length - (i % 61));
                console.Write(data);
                expected.AppendData(data);
            }

            for (int i = 0; i < 50; i++)
            {
                byte[] line = Encoding.ASCII.GetBytes($"line {i}\x1b[31m\r\n");
                console.Write(line);
                expected.AppendData(line);
            }

            last = console.LastLines;
        }

        using FileStream file = File.OpenRead(_path);
        Assert.True(expected.GetHashAndReset().AsSpan().SequenceEqual(SHA256.HashData(file)));
        string[] lines = last.Split('\n');
        Assert.Equal(40, lines.Length);
        Assert.Equal("line 10.[31m", lines[0]);
        Assert.Equal("line 49.[31m", lines[^1]);
        Assert.Null(_failure);
    }

    [Fact]
    public void A_byte_at_a_time_allocates_nothing()
    {
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.File, _path), Events, input: false);
        console.Start(null);
        console.Write("x"u8);
        long before = ThreadAllocations.Start();
        for (int i = 0; i < 100_000; i++)
            console.Write("x"u8);
        Assert.Equal(0, ThreadAllocations.Since(before));
    }

    [Fact]
    public void A_full_disk_is_told_once_and_the_guest_does_not_hang()
    {
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.File, "/dev/full"), Events, input: false);
        console.Start(null);
        for (int i = 0; i < 100; i++)
            console.Write(new byte[100_000]);
        SpinWait.SpinUntil(() => _failure is not null, 5000);
        Assert.Contains("/dev/full: No space left on device", _failure!.Message, StringComparison.Ordinal);
        Assert.Equal(VmmErrorKind.Host, _failure.Kind);
    }

    [Fact]
    public void A_file_that_cannot_be_made_is_an_error() =>
        Assert.Contains("/nowhere/x", Assert.Throws<VmmException>(() => GuestConsole.Open(new ConsoleConfig(ConsoleBackend.File, "/nowhere/x"), Events, false)).Message, StringComparison.Ordinal);

    [Fact]
    public void The_null_console_keeps_the_last_lines()
    {
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Null), Events, input: false);
        console.Start(null);
        console.Write("one\r\ntwo\r\n"u8);
        Assert.Equal("one\ntwo", console.LastLines);
    }

    [Fact]
    public void A_paste_of_10_MB_loses_nothing_on_a_slow_guest()
    {
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Socket, _path), Events, input: true);
        var guest = new SlowGuest();
        console.Start(guest.Receive);
        guest.Drained = console.SpaceAvailable;
        byte[] paste = new byte[10 * 1024 * 1024];
        new Random(2).NextBytes(paste);
        var serving = new Thread(() => guest.TakeUntil(paste.Length));
        serving.Start();
        using (Socket client = Connect())
        {
            client.Send(paste);
        }

        Assert.True(serving.Join(60_000), $"Only {guest.Received.Count} of {paste.Length} bytes came.");
        Assert.True(guest.Received.SequenceEqual(paste));
    }

    [Fact]
    public void Clients_come_and_go_and_each_gets_what_came_before()
    {
        using (GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Socket, _path), Events, input: true))
        {
            var input = new StringBuilder();
            console.Start(data =>
            {
                lock (input)
                    input.Append(Encoding.ASCII.GetString(data));
                return data.Length;
            });
            console.Write("early "u8);
            using (Socket first = Connect())
            {
                Assert.Equal("early ", Receive(first, 6));
                console.Write("live"u8);
                Assert.Equal("live", Receive(first, 4));
                first.Send("typed"u8);
                Assert.True(SpinWait.SpinUntil(() => { lock (input) return input.ToString() == "typed"; }, 5000));
            }

            Thread.Sleep(100);
            console.Write("between"u8);
            using Socket second = Connect();
            Assert.Equal("between", Receive(second, 7));
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, OperatingSystem.IsLinux() ? File.GetUnixFileMode(_path) : default);
        }

        Assert.False(File.Exists(_path));
        Assert.Null(_failure);
    }

    [Fact]
    public void The_first_client_gets_the_newest_MiB_and_is_told_what_is_lost()
    {
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Socket, _path), Events, input: false);
        console.Start(null);
        byte[] line = Encoding.ASCII.GetBytes(new string('.', 99) + "\n");
        for (int i = 0; i < 20_000; i++)
            console.Write(line);
        console.Write("the end"u8);
        Thread.Sleep(300);
        using Socket client = Connect();
        int lost = (20_000 * 100) + 7 - (1 << 20);
        string marker = $"[vmm: {lost} bytes of earlier output are lost]\r\n";
        string all = Receive(client, marker.Length + (1 << 20));
        Assert.StartsWith(marker, all, StringComparison.Ordinal);
        Assert.EndsWith("\nthe end", all, StringComparison.Ordinal);
    }

    [Fact]
    public void A_client_that_stops_reading_holds_up_a_guest_only_for_a_while()
    {
        using var console = new ConnectionConsole(new SocketEnd(_path), input: false, patienceMilliseconds: 500);
        console.Start(null);
        using Socket client = Connect();
        var vcpu = new Thread(() =>
        {
            for (int i = 0; i < 40_000; i++)
                console.Write("A line of a hundred bytes, which is what this one is, with all the dots that it takes to get there...\n"u8);
            console.Write("the end"u8);
        });
        vcpu.Start();
        Assert.True(vcpu.Join(30_000), "The client that does not read holds up the guest.");

        // It reads again: what was on its way, what is lost, and the newest; and then it is a client like any other.
        string all = ReceiveUntil(client, "the end");
        Assert.StartsWith("A line", all, StringComparison.Ordinal);
        Assert.Matches(@"\[vmm: [1-9][0-9]+ bytes of earlier output are lost\]", all);
        console.Write("more"u8);
        Assert.Equal("more", Receive(client, 4));
    }

    [Fact]
    public void A_client_that_closes_its_sending_side_still_gets_the_answer()
    {
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Socket, _path), Events, input: true);
        console.Start(data =>
        {
            if (data.Contains((byte)'?'))
            {
                Thread.Sleep(100);
                console.Write("answer"u8);
            }

            return data.Length;
        });
        using Socket client = Connect();
        client.Send("?"u8);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal("answer", Receive(client, 6));
    }

    [Fact]
    public void An_abandoned_socket_is_replaced_and_anything_else_is_not()
    {
        using (var left = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            left.Bind(new UnixDomainSocketEndPoint(_path));
            string moved = _path + ".moved";

            // .NET removes the file of a socket that it bound; under another name it stays, as after a crash.
            File.Move(_path, moved);
            left.Dispose();
            File.Move(moved, _path);
        }

        using (GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Socket, _path), Events, input: false))
        {
            console.Start(null);
            var busy = Assert.Throws<VmmException>(() => GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Socket, _path), Events, input: false));
            Assert.Contains("something is there already", busy.Message, StringComparison.Ordinal);
        }

        File.WriteAllText(_path, "precious");
        Assert.Throws<VmmException>(() => GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Socket, _path), Events, input: false));
        Assert.Equal("precious", File.ReadAllText(_path));
    }

    [Fact]
    public void A_pty_gives_early_output_to_whoever_opens_it_and_takes_input()
    {
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.Pty), Events, input: true);
        var input = new StringBuilder();
        console.Start(data =>
        {
            lock (input)
                input.Append(Encoding.ASCII.GetString(data));
            return data.Length;
        });
        Assert.StartsWith("/dev/pts/", console.Location, StringComparison.Ordinal);
        console.Write("early"u8);
        Thread.Sleep(50);
        for (int round = 0; round < 2; round++)
        {
            using (var slave = new FileStream(console.Location!, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0))
            {
                byte[] buffer = new byte[5];
                slave.ReadExactly(buffer);
                Assert.Equal("early", Encoding.ASCII.GetString(buffer));
                slave.Write("typed"u8);
                Assert.True(SpinWait.SpinUntil(() => { lock (input) return input.ToString() == "typed"; }, 5000), input.ToString());
                lock (input)
                    input.Clear();
            }

            Thread.Sleep(150);
            console.Write("early"u8);
        }
    }

    [Theory]
    [InlineData(ConsoleBackend.Tty)]
    [InlineData(ConsoleBackend.Socket)]
    public void At_the_end_nobody_waits_for_an_end_that_takes_nothing(ConsoleBackend backend)
    {
        // Not started: nobody ever takes anything.
        using GuestConsole console = GuestConsole.Open(new ConsoleConfig(backend, _path), Events, input: false);
        var vcpu = new Thread(() =>
        {
            for (int i = 0; i < 40; i++)
                console.Write(new byte[16 * 1024]);
        });
        vcpu.Start();
        Assert.False(vcpu.Join(200));
        console.LetGo();
        Assert.True(vcpu.Join(10_000));
    }

    [Fact]
    public void A_file_is_emptied_and_made_only_when_the_machine_starts()
    {
        File.WriteAllText(_path, "an earlier run");
        GuestConsole.Open(new ConsoleConfig(ConsoleBackend.File, _path), Events, input: false).Dispose();
        Assert.Equal("an earlier run", File.ReadAllText(_path));
        using (GuestConsole console = GuestConsole.Open(new ConsoleConfig(ConsoleBackend.File, _path), Events, input: false))
            console.Start(null);
        Assert.Equal("", File.ReadAllText(_path));
        File.Delete(_path);
        GuestConsole.Open(new ConsoleConfig(ConsoleBackend.File, _path), Events, input: false).Dispose();
        Assert.False(File.Exists(_path));
    }

    private Socket Connect()
    {
        var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 20_000 };
        client.Connect(new UnixDomainSocketEndPoint(_path));
        return client;
    }

    private static string ReceiveUntil(Socket client, string end)
    {
        client.ReceiveTimeout = 10_000;
        var all = new StringBuilder();
        byte[] buffer = new byte[65536];
        while (all.Length < end.Length || all.ToString(all.Length - end.Length, end.Length) != end)
            all.Append(Encoding.ASCII.GetString(buffer, 0, client.Receive(buffer)));
        return all.ToString();
    }

    private static string Receive(Socket client, int count)
    {
        byte[] buffer = new byte[count];
        int at = 0;
        while (at < count && client.Receive(buffer.AsSpan(at)) is var read and > 0)
            at += read;
        return Encoding.ASCII.GetString(buffer, 0, at);
    }

    /// <summary>A UART with a FIFO of 16 bytes, which takes nothing while it is full and says when there is room again.</summary>
    private sealed class SlowGuest
    {
        private readonly object _gate = new();
        private readonly byte[] _fifo = new byte[16];
        private int _count;

        internal Action Drained { get; set; } = () => { };

        internal List<byte> Received { get; } = [];

        internal int Receive(ReadOnlySpan<byte> data)
        {
            lock (_gate)
            {
                int taken = Math.Min(data.Length, _fifo.Length - _count);
                data[..taken].CopyTo(_fifo.AsSpan(_count));
                _count += taken;
                return taken;
            }
        }

        internal void TakeUntil(int total)
        {
            while (Received.Count < total)
            {
                bool took;
                lock (_gate)
                {
                    took = _count > 0;
                    Received.AddRange(_fifo.AsSpan(0, _count));
                    _count = 0;
                    if (took)
                        Drained();
                }

                if (!took)
                    Thread.Yield();
            }
        }
    }
}
