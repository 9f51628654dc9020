using Vmm.Core.Bus;

namespace Vmm.Core.Kvm;

/// <summary>A wire to an in-kernel interrupt controller pin. Remembers its level, so that repeating it costs no system call.</summary>
internal sealed class KvmIrqLine : IInterruptLine
{
    private readonly KvmVm _vm;
    private readonly uint _gsi;
    private readonly Lock _lock = new();
    private bool _asserted;

    internal KvmIrqLine(KvmVm vm, uint gsi)
    {
        _vm = vm;
        _gsi = gsi;
    }

    public void Set(bool asserted)
    {
        // The lock keeps the order of two threads' levels the same in the kernel as here.
        lock (_lock)
        {
            if (_asserted == asserted)
                return;
            _asserted = asserted;
            _vm.SetIrqLine(_gsi, asserted);
        }
    }
}
