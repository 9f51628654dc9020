using Vmm.Core.Bus;

namespace Vmm.Devices.Debugging;

/// <summary>
/// The PC's diagnostic port 0x80: keeps the last code, and hands each to a <see cref="BootTimer"/>. Kernels also write to it
/// only to pass some time, as Linux does with 0x00 and 0xFF; those are codes like any other.
/// </summary>
public sealed class PostCodePort : IBusDevice, IDevice<PostCodeState>
{
    /// <summary>The port.</summary>
    public const ushort Port = 0x80;

    /// <summary>How many ports the device takes.</summary>
    public const int Length = 1;

    private readonly BootTimer? _timer;
    private byte _last;

    /// <summary>Makes the port.</summary>
    /// <param name="timer">Given the codes, or null.</param>
    public PostCodePort(BootTimer? timer = null) => _timer = timer;

    /// <summary>The code that was written last, 0 at first.</summary>
    public byte LastCode => Volatile.Read(ref _last);

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        if (offset == 0 && !data.IsEmpty)
            data[0] = LastCode;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != 0 || data.IsEmpty)
            return;
        Volatile.Write(ref _last, data[0]);
        _timer?.PostCode(data[0]);
    }

    /// <summary>Forgets the last code and lets the boot timer start over.</summary>
    public void Reset()
    {
        Volatile.Write(ref _last, 0);
        _timer?.Restart();
    }

    /// <inheritdoc/>
    public PostCodeState Save() => new() { LastCode = LastCode };

    /// <inheritdoc/>
    public void Restore(PostCodeState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion("diagnostic port", state.Version, PostCodeState.CurrentVersion);
        Volatile.Write(ref _last, state.LastCode);
    }
}

/// <summary>Saved state of a <see cref="PostCodePort"/>.</summary>
public sealed record PostCodeState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>The code that was written last.</summary>
    public byte LastCode { get; init; }
}
