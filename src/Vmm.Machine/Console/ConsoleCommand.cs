namespace Vmm.Machine.Console;

/// <summary>What somebody asked of the machine with a Ctrl-A key at its terminal.</summary>
public enum ConsoleCommand
{
    /// <summary>Ctrl-A x: end the machine at once.</summary>
    End,

    /// <summary>Ctrl-A p: press the power button.</summary>
    PowerButton,

    /// <summary>Ctrl-A c: press Ctrl-Alt-Del.</summary>
    CtrlAltDelete,
}

/// <summary>Takes input for the guest and returns how many bytes of it there was room for, from the front; never throws.</summary>
public delegate int ConsoleReceiver(ReadOnlySpan<byte> data);

/// <summary>Whom a console tells what. The calls come on the console's threads; they return quickly and do not throw.</summary>
/// <param name="Command">Somebody pressed one of the Ctrl-A keys.</param>
/// <param name="Failed">The other end is lost for good, so the guest's output is too; called once at most, with the reason.</param>
public sealed record ConsoleEvents(Action<ConsoleCommand> Command, Action<Vmm.Core.VmmException> Failed);
