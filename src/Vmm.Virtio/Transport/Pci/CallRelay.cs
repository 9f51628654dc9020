using Vmm.Core;
using Vmm.Core.Events;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// Turns signals of call eventfds into interrupts of a function's line: somebody has to set the ISR status too (VIRTIO 1.3 §4.1.4.5), so
/// they cannot go to KVM by themselves. Called with the transport's lock held.
/// </summary>
/// <param name="calls">The eventfds.</param>
/// <param name="loop">Asked for the thread that watches them, when they are watched for the first time.</param>
/// <param name="raise">Interrupts for a queue, on that thread; takes no lock that is held over a call of this.</param>
/// <param name="failed">Told, as a clause, where they cannot be watched: the interrupts are lost.</param>
internal sealed class CallRelay(EventNotifier[] calls, Func<EventLoop> loop, Action raise, Action<string> failed)
{
    private EventLoop? _loop;
    private int _watched;

    /// <summary>Begins; repeating it changes nothing. Signals from before count.</summary>
    internal void Start()
    {
        if (_watched > 0)
            return;
        try
        {
            _loop ??= loop();
            for (; _watched < calls.Length; _watched++)
                _loop.Add(calls[_watched].Number, new Watch(calls[_watched], raise));
        }
        catch (VmmException e)
        {
            Stop();
            failed($"its interrupts cannot be watched: {e.Message}");
        }
    }

    /// <summary>Ends; repeating it changes nothing. What was consumed has been raised when it returns, and later signals stay in the eventfds.</summary>
    internal void Stop()
    {
        for (; _watched > 0; _watched--)
            _loop!.Remove(calls[_watched - 1].Number);
    }

    private sealed class Watch(EventNotifier call, Action raise) : IEventHandler
    {
        public bool Handle()
        {
            if (call.TryConsume())
                raise();
            return false;
        }
    }
}
