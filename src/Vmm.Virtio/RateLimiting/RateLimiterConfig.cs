using Vmm.Core;

namespace Vmm.Virtio.RateLimiting;

/// <summary>Limits of a device, or of one direction of it. The default limits nothing.</summary>
/// <param name="Bandwidth">In bytes.</param>
/// <param name="Operations">In requests or packets.</param>
public readonly record struct RateLimiterConfig(TokenBucketConfig Bandwidth, TokenBucketConfig Operations)
{
    /// <summary>Whether it limits anything.</summary>
    public bool IsLimit => Bandwidth.IsLimit || Operations.IsLimit;

    /// <summary>Refuses numbers that cannot be meant.</summary>
    /// <exception cref="VmmException">They are wrong.</exception>
    public void Validate()
    {
        Bandwidth.Validate("bw");
        Operations.Validate("ops");
    }
}
