using System.Buffers.Binary;
using System.Diagnostics;

namespace Vmm.Sandbox;

/// <summary>A command that runs in the sandbox.</summary>
public sealed class RunningCommand
{
    /// <summary>What agent.c takes ahead of its credit frames.</summary>
    private const int InputWindow = 65536;

    /// <summary>How many times its limit a command may take on a busy host.</summary>
    private const int LongestStretch = 4;

    private readonly AgentConnection connection;
    private readonly CommandOptions options;
    private readonly MemoryStream output = new();
    private readonly MemoryStream errors = new();
    private readonly TaskCompletionSource<(int Code, int Signal)> end = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly SemaphoreSlim creditArrived = new(0);
    private int credit = InputWindow;
    private Exception? handlerFailure;

    internal RunningCommand(AgentConnection connection, ushort id, CommandOptions options)
    {
        this.connection = connection;
        this.options = options;
        Id = id;
    }

    internal ushort Id { get; }

    /// <summary>Whether it has ended.</summary>
    public bool HasEnded => end.Task.IsCompleted;

    /// <summary>Gives the command input. Waits while it does not read.</summary>
    public async Task WriteInputAsync(ReadOnlyMemory<byte> data, CancellationToken cancellation = default)
    {
        while (data.Length > 0 && !HasEnded)
        {
            var available = Volatile.Read(ref credit);
            if (available == 0)
            {
                await creditArrived.WaitAsync(cancellation).ConfigureAwait(false);
                continue;
            }
            var part = data[..Math.Min(available, data.Length)];
            Interlocked.Add(ref credit, -part.Length);
            await connection.SendAsync('I', Id, part).ConfigureAwait(false);
            data = data[part.Length..];
        }
    }

    /// <summary>Ends the command's input.</summary>
    public Task CloseInputAsync() => connection.SendAsync('I', Id, ReadOnlyMemory<byte>.Empty);

    /// <summary>Sends a signal to the command's process group; 9 (SIGKILL) goes to all its descendants.</summary>
    /// <remarks>The group has the shell in it: start the program with "exec" to be told how the program itself ended.</remarks>
    public Task SignalAsync(int signal) => connection.SendAsync('K', Id, new[] { (byte)signal });

    /// <summary>Tells the command that its terminal has another size.</summary>
    public Task ResizeAsync(TerminalSize size)
    {
        var payload = new byte[4];
        BinaryPrimitives.WriteUInt16LittleEndian(payload, size.Rows);
        BinaryPrimitives.WriteUInt16LittleEndian(payload.AsSpan(2), size.Columns);
        return connection.SendAsync('W', Id, payload);
    }

    /// <summary>Waits for the command's end, or kills it at its time limit.</summary>
    /// <exception cref="SandboxException">The sandbox ended, or the command could not be started.</exception>
    /// <exception cref="OperationCanceledException">Cancelled; the command has been killed.</exception>
    public async Task<CommandResult> WaitAsync(CancellationToken cancellation = default)
    {
        var timedOut = false;
        try
        {
            timedOut = !await EndsInTimeAsync(cancellation).ConfigureAwait(false);
            if (timedOut)
                await KillAsync().ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            await KillAsync().ConfigureAwait(false);
            throw;
        }
        var (code, signal) = await end.Task.ConfigureAwait(false);
        if (handlerFailure is not null)
            throw new SandboxException($"The handler of a command's output failed: {handlerFailure.Message}", handlerFailure);
        return new CommandResult { ExitCode = code, Signal = signal, TimedOut = timedOut, OutputBytes = output.ToArray(), ErrorBytes = errors.ToArray() };
    }

    private async Task<bool> EndsInTimeAsync(CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        var before = options.Timeout == Timeout.InfiniteTimeSpan ? default : connection.Starved();
        var wait = options.Timeout;
        while (true)
        {
            try
            {
                await end.Task.WaitAsync(wait, cancellation).ConfigureAwait(false);
                return true;
            }
            catch (TimeoutException)
            {
                // A busy host is no fault of the command. Not for ever: whoever runs the tests has a limit of their own.
                var had = clock.Elapsed - (connection.Starved() - before);
                if (had >= options.Timeout || clock.Elapsed >= options.Timeout * LongestStretch)
                    return false;
                wait = TimeSpan.FromMilliseconds(Math.Max(10, (options.Timeout - had).TotalMilliseconds));
            }
        }
    }

    internal void TakeOutput(bool isError, ReadOnlySpan<byte> data)
    {
        if (options.KeepOutput)
            (isError ? errors : output).Write(data);
        try
        {
            options.OnOutput?.Invoke(isError, data);
        }
        catch (Exception e)
        {
            handlerFailure ??= e; // the channel has other users; told when the command ends
        }
    }

    internal void TakeCredit(int bytes)
    {
        Interlocked.Add(ref credit, bytes);
        creditArrived.Release();
    }

    internal void TakeExit(bool bySignal, byte code)
    {
        end.TrySetResult(bySignal ? (128 + code, code) : (code, 0));
        creditArrived.Release();
    }

    internal void Fail(SandboxException reason)
    {
        end.TrySetException(reason);
        _ = end.Task.Exception;
        creditArrived.Release();
    }

    private async Task KillAsync()
    {
        await SignalAsync(9).ConfigureAwait(false);
        try
        {
            await end.Task.WaitAsync(TimeSpan.FromSeconds(30)).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            throw new SandboxException("A command in the sandbox did not end within 30 s of being killed: the sandbox hangs. Dispose of it and start another.");
        }
    }
}
