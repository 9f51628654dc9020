using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Devices.Watchdog;
using Vmm.Machine.Configuration;

namespace Vmm.Machine;

/// <summary>Does to a machine what its watchdog asks for.</summary>
internal sealed class WatchdogResponse(MachineParts parts, IGuestEventSink events, MachineOutside outside) : IWatchdogObserver
{
    /// <summary>What a device is to ask for; null for no device.</summary>
    internal static WatchdogAction? ActionOf(WatchdogReaction reaction) => reaction switch
    {
        WatchdogReaction.Reset => WatchdogAction.Reset,
        WatchdogReaction.PowerOff => WatchdogAction.PowerOff,
        WatchdogReaction.Nmi => WatchdogAction.Panic,
        WatchdogReaction.None => WatchdogAction.None,
        _ => null,
    };

    public void Expired(WatchdogAction action)
    {
        switch (action)
        {
            case WatchdogAction.Reset:
                outside.WatchdogExpired = true;
                outside.Report("The watchdog expired: the machine is reset.");
                events.Signal(GuestEvent.Reset);
                break;
            case WatchdogAction.PowerOff:
                outside.Report("The watchdog expired: the machine is powered off.");
                events.Signal(GuestEvent.PowerOff);
                break;
            case WatchdogAction.Panic:
                outside.Report("The watchdog expired: every vCPU gets a non-maskable interrupt.");
                parts.SendNmi();
                break;
            default:
                outside.Report("The watchdog expired; nothing is done.");
                break;
        }
    }
}
