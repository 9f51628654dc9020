namespace Vmm.Devices;

/// <summary>
/// A sink that can say that it is full, for a caller who must not wait: one that serves others too. The counterpart of what a device offers
/// for input.
/// </summary>
public interface IBufferedCharacterSink : ICharacterSink
{
    /// <summary>
    /// Called when there is room again, after <see cref="TryWrite"/> took less than it was given. Runs on a thread of the sink's with no
    /// lock held; it returns soon and does not throw. Set before the guest runs.
    /// </summary>
    Action? RoomAvailable { get; set; }

    /// <summary>Takes what there is room for, from the front; never waits and never throws.</summary>
    /// <returns>How many bytes; when fewer than given, <see cref="RoomAvailable"/> follows.</returns>
    int TryWrite(ReadOnlySpan<byte> data);
}
