namespace Vmm.Machine.Console;

/// <summary>
/// Finds the Ctrl-A keys in what is typed. Ctrl-A x ends the machine, Ctrl-A p presses the power button, Ctrl-A c sends Ctrl-Alt-Del,
/// Ctrl-A h shows this, and Ctrl-A Ctrl-A (or Ctrl-A a) sends one Ctrl-A. Any other key after Ctrl-A goes to the guest with it.
/// </summary>
internal sealed class EscapeKeys(Action<ConsoleCommand> command, Action<string> show)
{
    private const byte CtrlA = 1;

    /// <summary>What Ctrl-A h shows; lines end as a raw terminal needs it.</summary>
    internal const string Help =
        "\r\n" +
        "Ctrl-A h       this help\r\n" +
        "Ctrl-A x       end the machine at once\r\n" +
        "Ctrl-A p       press the power button\r\n" +
        "Ctrl-A c       send Ctrl-Alt-Del\r\n" +
        "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

    private bool _pending;

    /// <summary>
    /// Takes the keys out and leaves in <paramref name="output"/> what the guest gets, whose length is returned. The output needs one
    /// byte more than the input.
    /// </summary>
    internal int Filter(ReadOnlySpan<byte> typed, Span<byte> output)
    {
        int length = 0;
        foreach (byte key in typed)
        {
            if (!_pending)
            {
                if (key == CtrlA)
                    _pending = true;
                else
                    output[length++] = key;
                continue;
            }

            _pending = false;
            switch (key)
            {
                case (byte)'x' or (byte)'X':
                    command(ConsoleCommand.End);
                    break;
                case (byte)'p' or (byte)'P':
                    command(ConsoleCommand.PowerButton);
                    break;
                case (byte)'c' or (byte)'C':
                    command(ConsoleCommand.CtrlAltDelete);
                    break;
                case (byte)'h' or (byte)'H' or (byte)'?':
                    show(Help);
                    break;
                case CtrlA or (byte)'a' or (byte)'A':
                    output[length++] = CtrlA;
                    break;
                default:
                    output[length++] = CtrlA;
                    output[length++] = key;
                    break;
            }
        }

        return length;
    }
}
