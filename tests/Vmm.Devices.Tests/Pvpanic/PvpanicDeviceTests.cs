using Vmm.Core.Bus;
using Vmm.Devices.Pvpanic;

namespace Vmm.Devices.Tests.Pvpanic;

public sealed class PvpanicDeviceTests
{
    [Theory]
    [InlineData(0x01, new[] { GuestEvent.Panic })]
    [InlineData(0x02, new[] { GuestEvent.CrashLoaded })]
    [InlineData(0x03, new[] { GuestEvent.CrashLoaded })]
    [InlineData(0x04, new[] { GuestEvent.PowerOff })]
    [InlineData(0x05, new[] { GuestEvent.Panic })]
    [InlineData(0x06, new[] { GuestEvent.CrashLoaded })]
    [InlineData(0xF8, new GuestEvent[0])]
    public void Bits_are_events(int value, GuestEvent[] expected)
    {
        var events = new FakeEvents();
        var device = new PvpanicDevice(events);
        device.WriteByte(1, value);
        Assert.Empty(events.Seen);
        device.WriteByte(0, value);
        Assert.Equal(expected, events.Seen);
        Assert.Equal(0x07, device.ReadByte(0));
    }
}
