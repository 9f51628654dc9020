using System.Text;
using Vmm.Core;
using Vmm.Devices;

namespace Vmm.Virtio.Devices.Console;

/// <summary>
/// The host's end of a named port of the console (VIRTIO 1.3 §5.3.6.2), which a guest finds as <c>/dev/virtio-ports/NAME</c> (with udev) or
/// <c>/dev/vportNpM</c>: a stream each way. It outlives the guest's reboots.
/// </summary>
/// <remarks>
/// What the guest writes comes by <see cref="TryWrite"/>, on the thread that serves the device's queues, which does not wait. Input is given by
/// <see cref="Receive"/>, from any thread; it waits in the device until the guest has opened its end.
/// </remarks>
public abstract class ConsolePortEnd : IBufferedCharacterSink
{
    /// <summary>The longest name, in bytes of UTF-8.</summary>
    public const int LongestName = 64;

    // Guards the connection: the device is not taken apart while somebody gives it input.
    private readonly Lock _lock = new();
    private ConsolePort? _port;
    private bool _hungUp;

    /// <summary>Makes one.</summary>
    /// <param name="name">What the guest finds it by: 1 to <see cref="LongestName"/> bytes, neither zero nor slash among them.</param>
    /// <exception cref="VmmException">It is no such name.</exception>
    protected ConsolePortEnd(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        NameBytes = Encoding.UTF8.GetBytes(name);
        if (NameBytes.Length is 0 or > LongestName || name.AsSpan().IndexOfAny('\0', '/') >= 0)
            throw VmmException.Configuration($"'{name}' is no name of a port; it has 1 to {LongestName} bytes, without zeroes and slashes.");
        Name = name;
    }

    /// <summary>What the guest finds it by.</summary>
    public string Name { get; }

    /// <inheritdoc/>
    public Action? RoomAvailable { get; set; }

    internal byte[] NameBytes { get; }

    /// <inheritdoc/>
    public abstract int TryWrite(ReadOnlySpan<byte> data);

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> data) => throw new NotSupportedException("A port's queues are served by a thread that must not wait.");

    /// <summary>Gives the guest input, as much as there is room for. Any thread.</summary>
    /// <returns>How many bytes were taken; when fewer than given, <see cref="OnInputRoom"/> follows. 0 also while there is no guest.</returns>
    public int Receive(ReadOnlySpan<byte> data)
    {
        lock (_lock)
            return _port?.Receive(data) ?? 0;
    }

    /// <summary>
    /// This end is closed for good, both ways: the guest reads to the end of what was received and then the end of the file, and is told that
    /// nobody takes what it writes. Any thread.
    /// </summary>
    public void HangUp()
    {
        lock (_lock)
        {
            _hungUp = true;
            _port?.HangUp();
        }
    }

    /// <summary>The guest has opened its end. On the device's thread: it returns soon and does not throw.</summary>
    protected internal virtual void OnOpened()
    {
    }

    /// <summary>The guest has closed its end, and all that it wrote before has come. On the device's thread, likewise.</summary>
    protected internal virtual void OnClosed()
    {
    }

    /// <summary>There is room for input again, or there is a guest. Any thread; it returns soon and does not throw.</summary>
    protected internal virtual void OnInputRoom()
    {
    }

    internal void Connect(ConsolePort port)
    {
        lock (_lock)
        {
            _port = port;
            if (_hungUp)
                port.HangUp();
        }
        OnInputRoom();
    }

    internal void Disconnect(ConsolePort port)
    {
        lock (_lock)
        {
            // The machine's next life may have connected its own already.
            if (_port == port)
                _port = null;
        }
    }
}
