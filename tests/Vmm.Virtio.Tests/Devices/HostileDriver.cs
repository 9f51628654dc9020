using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices;

/// <summary>
/// A driver that follows the rules of queues and none of the device's: chains of any number of pieces of any length, in any direction,
/// full of noise, on any queue, with configuration accesses, pauses and resets between them. The ring's own rules are broken in the
/// tests of queues.
/// </summary>
internal sealed class HostileDriver(GuestDriver driver, int seed)
{
    private const ulong Area = 8 << 20;
    private const int AreaLength = 16 << 20;

    private readonly Random _random = new(seed);

    /// <summary>Chains that were made available.</summary>
    public long Chains { get; private set; }

    /// <summary>Resets that the driver made, because the device asked for them or for fun.</summary>
    public int Resets { get; private set; }

    /// <summary>
    /// Does it for some steps. Whatever the device did has to lie in what it was lent, and the reasons for its resets have to be the driver's.
    /// </summary>
    /// <param name="steps">How many.</param>
    /// <param name="outside">Called in each step: the other side of the device.</param>
    public void Run(int steps, Action<Random>? outside = null)
    {
        Assert.True(driver.Memory.TryGetSpan(Area, AreaLength, out Span<byte> area));
        _random.NextBytes(area);
        int reasons = 0;
        driver.Start();
        for (int i = 0; i < steps; i++)
        {
            Step();
            outside?.Invoke(_random);
            foreach (DriverQueue queue in driver.Queues)
            {
                // Gives an error for an id that is not in flight, and for more bytes written than there was room for.
                while (queue.TryGetUsed(out _))
                {
                }
            }
            if (driver.Host.ResetReasons.Count == reasons && _random.Next(50) != 0)
                continue;
            driver.Reset();
            reasons = driver.Host.ResetReasons.Count;
            Resets++;
            driver.Start();
        }
        driver.Reset();
        Assert.DoesNotContain(driver.Host.ResetReasons, r => r.Contains("defect", StringComparison.Ordinal));
    }

    private void Step()
    {
        switch (_random.Next(12))
        {
            case 0:
                byte[] data = new byte[_random.Next(0, driver.Device.ConfigurationLength + 1)];
                int offset = _random.Next(0, driver.Device.ConfigurationLength - data.Length + 1);
                _random.NextBytes(data);
                driver.Device.WriteConfiguration(offset, data);
                driver.Device.ReadConfiguration(offset, data);
                break;
            case 1:
                driver.Restart();
                break;
            case 2:
                int index = _random.Next(driver.Queues.Length);
                VirtQueueState state = driver.Device.StopQueue(index);
                Assert.Equal(state, driver.Device.StopQueue(index));
                driver.Device.StartQueue(driver.Queues[index].Setup(state));
                break;
            default:
                DriverQueue queue = driver.Queues[_random.Next(driver.Queues.Length)];
                for (int chains = _random.Next(1, 6); chains > 0; chains--)
                {
                    if (queue.Add(Chain(), queue.Features.Indirect && _random.Next(2) == 0) >= 0)
                        Chains++;
                }
                queue.Doorbell.Signal();
                break;
        }
    }

    private GuestBuffer[] Chain()
    {
        int readable = _random.Next(4) switch { 0 or 1 => 0, 2 => 1, _ => _random.Next(1, 20) };
        int writable = _random.Next(4) switch { 0 or 1 => readable == 0 ? 1 : 0, 2 => 1, _ => _random.Next(1, 20) };
        var chain = new GuestBuffer[readable + writable];
        for (int i = 0; i < chain.Length; i++)
        {
            uint length = (uint)(_random.Next(6) switch
            {
                0 => 1,
                1 => 4 * _random.Next(1, 300),
                2 => 4096 * _random.Next(1, 4),
                3 => _random.Next(1, 1 << 20),
                _ => _random.Next(1, 5000),
            });
            chain[i] = new GuestBuffer(Area + (ulong)_random.Next(0, AreaLength - (int)length), length, i >= readable);
        }
        return chain;
    }
}
