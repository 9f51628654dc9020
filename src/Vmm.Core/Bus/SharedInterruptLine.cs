namespace Vmm.Core.Bus;

/// <summary>Several devices' wires on one level-triggered pin, as PCI's INTx are: the pin is high while any of them is.</summary>
public sealed class SharedInterruptLine
{
    private readonly IInterruptLine _pin;

    // Held over _pin.Set, so that the pin sees levels in the order in which they were decided.
    private readonly Lock _lock = new();
    private int _asserted;

    /// <summary>Makes one without wires.</summary>
    /// <param name="pin">The pin, at rest.</param>
    public SharedInterruptLine(IInterruptLine pin)
    {
        ArgumentNullException.ThrowIfNull(pin);
        _pin = pin;
    }

    /// <summary>Adds a wire, at rest.</summary>
    public IInterruptLine AddWire() => new Wire(this);

    private sealed class Wire(SharedInterruptLine line) : IInterruptLine
    {
        private bool _high;

        public void Set(bool asserted)
        {
            lock (line._lock)
            {
                if (_high == asserted)
                    return;
                _high = asserted;
                line._asserted += asserted ? 1 : -1;
                line._pin.Set(line._asserted > 0);
            }
        }
    }
}
