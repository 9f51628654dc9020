using Vmm.Core.Bus;
using Vmm.Core.Events;

namespace Vmm.Core.Kvm;

/// <summary>Doorbells by KVM_IOEVENTFD.</summary>
internal sealed class KvmDoorbellRegistrar(KvmVm vm) : IDoorbellRegistrar
{
    public bool TryConnect(EventNotifier doorbell, ulong address, int length, ulong? match) =>
        vm.TryIoEventFd(doorbell.Number, address, (uint)length, match, connect: true);

    public void Disconnect(EventNotifier doorbell, ulong address, int length, ulong? match) =>
        _ = vm.TryIoEventFd(doorbell.Number, address, (uint)length, match, connect: false);
}
