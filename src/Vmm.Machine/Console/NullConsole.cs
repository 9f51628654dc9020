namespace Vmm.Machine.Console;

/// <summary>Keeps the last lines for a crash report and forgets the rest; has no input and no thread.</summary>
internal sealed class NullConsole : GuestConsole
{
    private readonly object _gate = new();
    private readonly LastLines _lastLines = new();

    public override string LastLines
    {
        get
        {
            lock (_gate)
                return _lastLines.ToString();
        }
    }

    public override Action? RoomAvailable { get; set; }

    public override void Start(ConsoleReceiver? receive)
    {
    }

    public override void SpaceAvailable()
    {
    }

    public override void LetGo()
    {
    }

    public override void Write(ReadOnlySpan<byte> data)
    {
        lock (_gate)
            _lastLines.Append(data);
    }

    public override int TryWrite(ReadOnlySpan<byte> data)
    {
        Write(data);
        return data.Length;
    }

    protected override void Dispose(bool disposing)
    {
    }
}
