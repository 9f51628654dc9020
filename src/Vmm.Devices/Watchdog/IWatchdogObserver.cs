namespace Vmm.Devices.Watchdog;

/// <summary>Does what a watchdog asks for.</summary>
public interface IWatchdogObserver
{
    /// <summary>It expired. Called on a timer's thread, without a lock; returns soon.</summary>
    void Expired(WatchdogAction action);
}
