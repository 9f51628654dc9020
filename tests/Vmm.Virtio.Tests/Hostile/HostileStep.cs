using FsCheck;
using FsCheck.Fluent;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>One thing that the hostile driver does.</summary>
/// <param name="Kind">0 to 99: what.</param>
/// <param name="X">Where, mostly the queue.</param>
/// <param name="Seed">All the rest.</param>
public readonly record struct HostileStep(int Kind, int X, int Seed)
{
    private static Gen<HostileStep> One { get; } =
        from kind in Gen.Choose(0, 99)
        from x in Gen.Choose(0, 255)
        from seed in Gen.Choose(int.MinValue, int.MaxValue - 1)
        select new HostileStep(kind, x, seed);

    /// <summary>Whole cases; those that fail are made smaller.</summary>
    public static Arbitrary<HostileStep[]> Cases { get; } = Arb.From(Gen.ArrayOf(One), Smaller);

    private static IEnumerable<HostileStep[]> Smaller(HostileStep[] steps)
    {
        for (int part = steps.Length / 2; part >= 1; part /= 2)
        {
            for (int at = 0; at + part <= steps.Length; at += part)
                yield return [.. steps.AsSpan(0, at), .. steps.AsSpan(at + part)];
        }
    }
}

/// <summary>Numbers from a seed, without allocation (SplitMix64).</summary>
public struct SeededNumbers(int seed)
{
    private ulong _state = (uint)seed * 0x9E3779B97F4A7C15;

    /// <summary>64 random bits.</summary>
    public ulong Next()
    {
        ulong z = _state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }

    /// <summary>0 to a bound, exclusively.</summary>
    public int Below(int bound) => (int)(Next() % (uint)bound);

    /// <summary>True once in so many times.</summary>
    public bool OneIn(int times) => Below(times) == 0;

    /// <summary>One of some values.</summary>
    public T Of<T>(ReadOnlySpan<T> values) => values[Below(values.Length)];
}
