using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Text;

namespace Vmm.Sandbox;

/// <summary>The host's end of the channel to agent.c, which documents its frames.</summary>
internal sealed class AgentConnection
{
    private const int HeaderLength = 8;
    private const int MaxFrame = 1 << 20;

    private readonly Stream toAgent;
    private readonly Stream fromAgent;
    private readonly SemaphoreSlim writeLock = new(1, 1);
    private readonly ConcurrentDictionary<ushort, RunningCommand> commands = new();
    private readonly TaskCompletionSource ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int lastId;

    /// <param name="toAgent">What the agent reads.</param>
    /// <param name="fromAgent">What the agent writes.</param>
    /// <param name="starved">How long the sandbox has waited for a processor of the host so far.</param>
    public AgentConnection(Stream toAgent, Stream fromAgent, Func<TimeSpan> starved)
    {
        Starved = starved;
        this.toAgent = toAgent;
        this.fromAgent = fromAgent;
        Closed = Task.Run(ReadAsync);
    }

    public Func<TimeSpan> Starved { get; }

    /// <summary>Completes when the agent has said hello.</summary>
    public Task Ready => ready.Task;

    /// <summary>Completes, never with an error, when the channel has ended; every command still running has then failed.</summary>
    public Task Closed { get; }

    public async Task<RunningCommand> RunAsync(string command, CommandOptions options)
    {
        var text = new StringBuilder().Append(options.Directory).Append('\0').Append(command).Append('\0');
        foreach (var (name, value) in options.Environment ?? new Dictionary<string, string>())
            text.Append(name).Append('=').Append(value).Append('\0');
        var payload = new byte[5 + Encoding.UTF8.GetByteCount(text.ToString())];
        payload[0] = options.Terminal is null ? (byte)0 : (byte)1;
        BinaryPrimitives.WriteUInt16LittleEndian(payload.AsSpan(1), options.Terminal?.Rows ?? 0);
        BinaryPrimitives.WriteUInt16LittleEndian(payload.AsSpan(3), options.Terminal?.Columns ?? 0);
        Encoding.UTF8.GetBytes(text.ToString(), payload.AsSpan(5));
        if (payload.Length > MaxFrame)
            throw new SandboxException($"A command for the sandbox, with its environment, is {payload.Length} bytes long; at most {MaxFrame} can be sent. Copy a script in instead.");

        var running = new RunningCommand(this, (ushort)Interlocked.Increment(ref lastId), options);
        commands[running.Id] = running;
        if (Closed.IsCompleted)
            running.Fail(Ended());
        else
            await SendAsync('R', running.Id, payload).ConfigureAwait(false);
        return running;
    }

    public async Task SendAsync(char type, ushort id, ReadOnlyMemory<byte> payload)
    {
        var frame = new byte[HeaderLength + payload.Length];
        frame[0] = (byte)type;
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(2), id);
        BinaryPrimitives.WriteInt32LittleEndian(frame.AsSpan(4), payload.Length);
        payload.CopyTo(frame.AsMemory(HeaderLength));
        await writeLock.WaitAsync().ConfigureAwait(false);
        try
        {
            await toAgent.WriteAsync(frame).ConfigureAwait(false);
            await toAgent.FlushAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // The reader sees the end too, and tells every command.
        }
        finally
        {
            writeLock.Release();
        }
    }

    private static SandboxException Ended() =>
        new("The sandbox ended while a command was running in it (its machine stopped, or it was disposed of).");

    private async Task ReadAsync()
    {
        try
        {
            var header = new byte[HeaderLength];
            var payload = new byte[65536];
            while (true)
            {
                await fromAgent.ReadExactlyAsync(header).ConfigureAwait(false);
                var length = BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(4));
                if (length is < 0 or > MaxFrame)
                    break;
                if (length > payload.Length)
                    payload = new byte[MaxFrame];
                await fromAgent.ReadExactlyAsync(payload.AsMemory(0, length)).ConfigureAwait(false);
                Handle((char)header[0], BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(2)), payload.AsSpan(0, length));
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // End of the channel.
        }
        ready.TrySetException(Ended());
        _ = ready.Task.Exception; // not everyone waits for it
        foreach (var command in commands.Values)
            command.Fail(Ended());
    }

    private void Handle(char type, ushort id, ReadOnlySpan<byte> payload)
    {
        if (type == 'H')
            ready.TrySetResult();
        if (!commands.TryGetValue(id, out var command))
            return;
        switch (type)
        {
            case 'O' or 'E':
                command.TakeOutput(type == 'E', payload);
                break;
            case 'C' when payload.Length == 4:
                command.TakeCredit(BinaryPrimitives.ReadInt32LittleEndian(payload));
                break;
            case 'X' when payload.Length == 2:
                commands.TryRemove(id, out _);
                command.TakeExit(payload[0] != 0, payload[1]);
                break;
            case 'F':
                commands.TryRemove(id, out _);
                command.Fail(new SandboxException($"The sandbox could not start a command: {Encoding.UTF8.GetString(payload)}."));
                break;
        }
    }
}
