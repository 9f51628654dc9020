using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>
/// A token bucket: <c>bw_size=</c> bytes or <c>ops_size=</c> operations, filled anew every <c>…_refill_time</c> milliseconds, with
/// <c>…_one_time_burst</c> more at the start.
/// </summary>
/// <param name="Size">Tokens that fit in; 1 or more.</param>
/// <param name="OneTimeBurst">Tokens on top, once.</param>
/// <param name="RefillMilliseconds">How long an empty one takes to fill; 1 to 86400000 (a day).</param>
public sealed record TokenBucketOptions(ulong Size, ulong OneTimeBurst, int RefillMilliseconds)
{
    internal static readonly string[] Keys =
        ["bw_size", "bw_one_time_burst", "bw_refill_time", "ops_size", "ops_one_time_burst", "ops_refill_time"];

    internal static readonly string[] Words = [.. Keys.Select(key => key + "=")];

    internal const string Syntax = "[,bw_size=BYTES,bw_refill_time=MS[,bw_one_time_burst=BYTES]][,ops_size=N,ops_refill_time=MS[,ops_one_time_burst=N]]";

    // Half of what a signed 64-bit number of them holds, so that sums of two do not overflow.
    private const ulong Most = 1UL << 62;

    internal static TokenBucketOptions? From(OptionFields fields, string prefix)
    {
        ulong size = fields.Size($"{prefix}_size", 0, 1, Most);
        int? refill = fields.Number($"{prefix}_refill_time", 1, 24 * 60 * 60 * 1000);
        ulong burst = fields.Size($"{prefix}_one_time_burst", 0, 0, Most);
        if (size != 0 && refill is { } milliseconds)
            return new TokenBucketOptions(size, burst, milliseconds);
        foreach (string key in new[] { "size", "refill_time", "one_time_burst" })
        {
            if (fields.Find($"{prefix}_{key}") is { } field)
                throw OptionFields.Error(field, $"{field.Key} alone limits nothing; give both {prefix}_size and {prefix}_refill_time.");
        }
        return null;
    }

    internal void WriteTo(IConfigWriter writer, string prefix)
    {
        writer.Size($"{prefix}_size", Size);
        writer.Size($"{prefix}_one_time_burst", OneTimeBurst);
        writer.Number($"{prefix}_refill_time", RefillMilliseconds);
    }
}

/// <summary>The two limits of a device.</summary>
/// <param name="Bandwidth">Bytes; null for no limit.</param>
/// <param name="Operations">Requests or packets; null for no limit.</param>
public sealed record RateLimitOptions(TokenBucketOptions? Bandwidth = null, TokenBucketOptions? Operations = null)
{
    internal static RateLimitOptions From(OptionFields fields) => new(TokenBucketOptions.From(fields, "bw"), TokenBucketOptions.From(fields, "ops"));

    internal void WriteTo(IConfigWriter writer)
    {
        Bandwidth?.WriteTo(writer, "bw");
        Operations?.WriteTo(writer, "ops");
    }
}
