using Vmm.Core;

namespace Vmm.Virtio.Devices.Balloon;

/// <summary>A memory balloon.</summary>
public sealed record BalloonConfig
{
    /// <summary>The name that people gave it.</summary>
    public string Id { get; init; } = "balloon0";

    /// <summary>Bytes of guest memory that are to be in the balloon at first; parts of a page of 4 KiB do not count.</summary>
    public ulong Size { get; init; }

    /// <summary>Whether the guest may take pages back, against the target, before it kills processes for want of memory.</summary>
    public bool DeflateOnOom { get; init; }

    /// <summary>Whether the guest is asked to report free pages, whose host memory is given back without any target.</summary>
    public bool FreePageReporting { get; init; }

    /// <summary>Between two requests for statistics; zero for none but what the guest sends by itself when it starts.</summary>
    public TimeSpan StatsPollingInterval { get; init; }

    /// <summary>Says what is wrong with it.</summary>
    /// <exception cref="VmmException">A value is out of its range.</exception>
    public void Validate()
    {
        if (Size > BalloonDevice.MaximumSize)
            throw VmmException.Configuration($"A balloon of {Size} bytes is too large: it has at most {BalloonDevice.MaximumSize} bytes; ask for less (--balloon size=).");
        if (StatsPollingInterval < TimeSpan.Zero || StatsPollingInterval > TimeSpan.FromDays(1))
            throw VmmException.Configuration($"The balloon cannot ask for statistics every {StatsPollingInterval.TotalSeconds} s: 0 (never) to 86400 are possible.");
    }
}
