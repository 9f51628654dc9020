namespace Vmm.Devices.I8042;

/// <summary>
/// The keyboard behind the controller: answers commands and keeps a queue of bytes for the controller, in set 2 (IBM PS/2
/// Hardware Interface Technical Reference, "Keyboard (101- and 102-key)"). Guarded by the controller's lock.
/// </summary>
internal sealed class Ps2Keyboard
{
    /// <summary>Most bytes waiting; answers to commands are few, so the rest is for keys.</summary>
    public const int QueueSize = 32;

    private const byte Acknowledge = 0xFA;
    private const byte Resend = 0xFE;
    private const byte SelfTestPassed = 0xAA;
    private const byte DefaultTypematic = 0x2B;

    // Answers push keys out rather than the other way around: a driver waits for answers.
    private const int KeysKeepFree = 4;

    private readonly byte[] _queue = new byte[QueueSize];
    private int _head;

    public Ps2Keyboard() => PowerOn();

    /// <summary>How many bytes wait.</summary>
    public int Count { get; private set; }

    /// <summary>Keys are sent (command 0xF4 was given, or the power-on state).</summary>
    public bool Scanning { get; set; }

    /// <summary>The command that waits for its parameter, or 0.</summary>
    public byte Pending { get; set; }

    /// <summary>The lamps: bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock.</summary>
    public byte Leds { get; set; }

    /// <summary>Typematic rate and delay as last set.</summary>
    public byte Typematic { get; set; }

    /// <summary>The scan code set that was selected, 1 to 3. Keys are sent in set 2 whatever it is.</summary>
    public byte ScanCodeSet { get; set; }

    /// <summary>The last byte sent, for 0xFE.</summary>
    public byte LastSent { get; set; }

    /// <summary>The oldest byte that waits.</summary>
    public byte Peek() => Count > 0 ? _queue[_head] : (byte)0;

    /// <summary>Takes the oldest byte that waits.</summary>
    public byte Take()
    {
        if (Count == 0)
            return LastSent;
        LastSent = _queue[_head];
        _head = (_head + 1) % QueueSize;
        Count--;
        return LastSent;
    }

    /// <summary>Queues key codes of set 2, all or none.</summary>
    public bool SendKeys(ReadOnlySpan<byte> codes)
    {
        if (!Scanning || codes.Length > QueueSize - KeysKeepFree - Count)
            return false;
        foreach (byte code in codes)
            Enqueue(code);
        return true;
    }

    /// <summary>Queues one byte, or drops it when the queue is full.</summary>
    public void Enqueue(byte value)
    {
        if (Count == QueueSize)
            return;
        _queue[(_head + Count) % QueueSize] = value;
        Count++;
    }

    /// <summary>Puts the keyboard where power-on leaves it, with nothing queued.</summary>
    public void PowerOn()
    {
        SetDefaults();
        _head = Count = 0;
        Scanning = true;
        Leds = 0;
        Pending = LastSent = 0;
    }

    /// <summary>Copies what waits, the oldest first.</summary>
    public byte[] CopyQueue()
    {
        byte[] copy = new byte[Count];
        for (int i = 0; i < copy.Length; i++)
            copy[i] = _queue[(_head + i) % QueueSize];
        return copy;
    }

    /// <summary>Replaces what waits.</summary>
    public void SetQueue(ReadOnlySpan<byte> bytes)
    {
        _head = Count = 0;
        foreach (byte value in bytes)
            Enqueue(value);
    }

    /// <summary>Takes a byte from the controller: a command or its parameter.</summary>
    public void Command(byte value)
    {
        byte pending = Pending;
        Pending = 0;
        // A command where a parameter was due replaces the command (parameters are below 0xED).
        if (pending != 0 && value < 0xED)
        {
            Parameter(pending, value);
            return;
        }
        switch (value)
        {
            case 0xED or 0xF0 or 0xF3: // Lamps, scan code set, typematic: a parameter follows.
            case 0xFB or 0xFC or 0xFD: // Set 3 key types: a key code follows.
                Pending = value;
                Answer(Acknowledge);
                break;
            case 0xEE: // Echo.
                Answer(0xEE);
                break;
            case 0xF2: // Identify.
                Answer(Acknowledge);
                Enqueue(0xAB);
                Enqueue(0x83);
                break;
            case 0xF4: // Enable.
                Scanning = true;
                Answer(Acknowledge);
                break;
            case 0xF5: // Disable, and the defaults.
                SetDefaults();
                Scanning = false;
                Answer(Acknowledge);
                break;
            case 0xF6: // Defaults.
                SetDefaults();
                Answer(Acknowledge);
                break;
            case >= 0xF7 and <= 0xFA: // Set 3: all keys typematic or make/break; acknowledged, as set 2 has no such thing.
                Answer(Acknowledge);
                break;
            case 0xFE: // Resend.
                Enqueue(LastSent);
                break;
            case 0xFF: // Reset and self-test.
                PowerOn();
                Enqueue(Acknowledge);
                Enqueue(SelfTestPassed);
                break;
            default:
                Answer(Resend);
                break;
        }
    }

    private void Parameter(byte command, byte value)
    {
        switch (command)
        {
            case 0xED:
                Leds = (byte)(value & 0x07);
                Answer(Acknowledge);
                break;
            case 0xF0 when value == 0:
                Answer(Acknowledge);
                Enqueue(ScanCodeSet);
                break;
            case 0xF0 when value is >= 1 and <= 3:
                ScanCodeSet = value;
                Answer(Acknowledge);
                break;
            case 0xF0:
                Answer(Resend);
                break;
            case 0xF3:
                Typematic = (byte)(value & 0x7F);
                Answer(Acknowledge);
                break;
            default:
                Answer(Acknowledge);
                break;
        }
    }

    private void SetDefaults()
    {
        Typematic = DefaultTypematic;
        ScanCodeSet = 2;
    }

    /// <summary>Begins an answer. Keys not yet fetched are dropped, as the keyboard clears its buffer when a command comes.</summary>
    private void Answer(byte value)
    {
        _head = Count = 0;
        Enqueue(value);
    }
}
