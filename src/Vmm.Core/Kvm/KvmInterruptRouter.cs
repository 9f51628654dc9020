using System.Runtime.InteropServices;
using Vmm.Core.Bus;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Core.Locking;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Kvm;

/// <summary>
/// Owns a VM's interrupt routes (KVM_SET_GSI_ROUTING, which replaces the whole table): the pins, routed as KVM routes them by itself, and
/// after them the message-signalled interrupts, one GSI each. Raises go by irqfd, without a lock.
/// </summary>
/// <remarks>
/// The table is set only when a message that is in use changes, not for each register of it that a guest writes: about a microsecond
/// per route, and KVM waits for its readers.
/// </remarks>
internal sealed class KvmInterruptRouter : IInterruptRouter
{
    /// <summary>Inputs of the IOAPIC, and of GSIs that are pins.</summary>
    internal const uint PinCount = 24;

    private const uint PicPinCount = 16;
    private const uint PinsPerPic = 8;

    // KVM_MAX_IRQ_ROUTES on x86.
    private const int MaximumRoutes = 4096;

    private readonly KvmVm _vm;

    // A leaf: nothing else is locked while it is held.
    private readonly OrderedLock _lock = new(LockRank.InterruptRoutes);
    private readonly List<kvm_irq_routing_entry> _routes = DefaultRoutes();
    private readonly SharedInterruptLine?[] _shared = new SharedInterruptLine?[PinCount];
    private readonly bool[] _gsiTaken = new bool[MaximumRoutes];

    internal KvmInterruptRouter(KvmVm vm)
    {
        _vm = vm;
        _gsiTaken.AsSpan(0, (int)PinCount).Fill(true);
    }

    /// <summary>How many messages are routed.</summary>
    internal int MessageRoutes
    {
        get
        {
            using (_lock.Enter())
                return _routes.Count - (int)(PinCount + PicPinCount);
        }
    }

    /// <summary>How often the table was set.</summary>
    internal int Updates { get; private set; }

    public IInterruptTrigger ConnectPin(uint gsi)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(gsi, PinCount);
        return new Trigger(_vm, gsi);
    }

    public IMessageInterrupt CreateMessage()
    {
        using (_lock.Enter())
        {
            int gsi = Array.IndexOf(_gsiTaken, false);
            if (gsi < 0)
                throw VmmException.Configuration($"Cannot make another interrupt: KVM has room for {MaximumRoutes}. Give the devices fewer queues.");
            var message = new Message(this, (uint)gsi);
            _gsiTaken[gsi] = true;
            return message;
        }
    }

    public IInterruptLine ConnectShared(uint gsi)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(gsi, PinCount);
        using (_lock.Enter())
            return (_shared[gsi] ??= new SharedInterruptLine(new KvmIrqLine(_vm, gsi))).AddWire();
    }

    /// <summary>What KVM_CREATE_IRQCHIP sets up: GSIs are the IOAPIC's inputs, and the first 16 are those of the PICs too.</summary>
    private static List<kvm_irq_routing_entry> DefaultRoutes()
    {
        var routes = new List<kvm_irq_routing_entry>();
        for (uint gsi = 0; gsi < PinCount; gsi++)
        {
            if (gsi < PicPinCount)
                routes.Add(Pin(gsi, gsi < PinsPerPic ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % PinsPerPic));
            routes.Add(Pin(gsi, KVM_IRQCHIP_IOAPIC, gsi));
        }
        return routes;

        static kvm_irq_routing_entry Pin(uint gsi, uint irqchip, uint pin) =>
            new() { gsi = gsi, type = KVM_IRQ_ROUTING_IRQCHIP, irqchip = new kvm_irq_routing_irqchip { irqchip = irqchip, pin = pin } };
    }

    private bool TrySet(uint gsi, ulong address, uint data)
    {
        var msi = new kvm_irq_routing_msi { address_lo = (uint)address, address_hi = (uint)(address >> 32), data = data };
        var route = new kvm_irq_routing_entry { gsi = gsi, type = KVM_IRQ_ROUTING_MSI, msi = msi };
        int at = Find(gsi);
        if (at < 0)
            _routes.Add(route);
        else
            _routes[at] = route;
        if (TryUpdate())
            return true;
        // KVM refuses the whole table for one message it does not understand. The others must not suffer.
        Clear(gsi);
        return false;
    }

    private void Clear(uint gsi)
    {
        int at = Find(gsi);
        if (at < 0)
            return;
        _routes.RemoveAt(at);
        _ = TryUpdate();
    }

    private int Find(uint gsi)
    {
        ReadOnlySpan<kvm_irq_routing_entry> routes = CollectionsMarshal.AsSpan(_routes);
        for (int i = (int)(PinCount + PicPinCount); i < routes.Length; i++)
        {
            if (routes[i].gsi == gsi)
                return i;
        }
        return -1;
    }

    private bool TryUpdate()
    {
        Updates++;
        return _vm.TrySetGsiRouting(CollectionsMarshal.AsSpan(_routes));
    }

    /// <summary>An eventfd on a GSI.</summary>
    private class Trigger : IInterruptTrigger
    {
        private readonly KvmVm _vm;
        private readonly EventNotifier _event = new();
        private bool _disposed;

        public Trigger(KvmVm vm, uint gsi)
        {
            _vm = vm;
            Gsi = gsi;
            try
            {
                vm.AddIrqfd(_event.Number, gsi);
            }
            catch
            {
                _event.Dispose();
                throw;
            }
        }

        protected uint Gsi { get; }

        public virtual void Raise() => _event.Signal();

        public bool TryAttach(EventNotifier call)
        {
            if (!_vm.TryIrqfd(call.Number, Gsi, connect: true))
                return false;
            // KVM looks whether it is signalled already and raises then, but leaves the signal there; later ones it takes itself. So
            // whatever is left has been raised, also what came since.
            _ = call.TryConsume();
            return true;
        }

        // KVM takes it off the eventfd, with the signals that it has raised, under the lock that signals take; then it waits for the
        // raises that are under way.
        public void Detach(EventNotifier call) => _ = _vm.TryIrqfd(call.Number, Gsi, connect: false);

        public virtual void Dispose()
        {
            if (_disposed)
                return;
            _disposed = true;
            // Closing the last reference to the eventfd disconnects it too, but later, when the GSI may have another owner.
            _vm.RemoveIrqfd(_event.Number, Gsi);
            _event.Dispose();
        }
    }

    private sealed class Message(KvmInterruptRouter router, uint gsi) : Trigger(router._vm, gsi), IMessageInterrupt
    {
        private (ulong Address, uint Data)? _routed;
        private bool _freed;

        // KVM keeps a raise of a GSI without a route for a worker thread, which may find the next route there.
        private volatile bool _hasRoute;

        public override void Raise()
        {
            if (_hasRoute)
                base.Raise();
        }

        public bool Route(ulong address, uint data)
        {
            using (router._lock.Enter())
            {
                if (_freed)
                    return false;
                if (_routed == (address, data))
                    return true;
                bool done = router.TrySet(Gsi, address, data);
                _routed = done ? (address, data) : null;
                _hasRoute = done;
                return done;
            }
        }

        public void Unroute()
        {
            using (router._lock.Enter())
            {
                if (_routed == null)
                    return;
                _routed = null;
                _hasRoute = false;
                router.Clear(Gsi);
            }
        }

        public override void Dispose()
        {
            base.Dispose();
            using (router._lock.Enter())
            {
                if (_freed)
                    return;
                _freed = true;
                if (_routed != null)
                    router.Clear(Gsi);
                router._gsiTaken[Gsi] = false;
            }
        }
    }
}
