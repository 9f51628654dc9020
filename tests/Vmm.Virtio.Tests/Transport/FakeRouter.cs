using Vmm.Core.Bus;

namespace Vmm.Virtio.Tests.Transport;

internal sealed class FakeRouter : IInterruptRouter
{
    public List<FakeMessage> Messages { get; } = [];

    public IInterruptTrigger ConnectPin(uint gsi) => new FakeTrigger();

    public IMessageInterrupt CreateMessage()
    {
        var message = new FakeMessage();
        Messages.Add(message);
        return message;
    }

    public IInterruptLine ConnectShared(uint gsi) => new FakeLine();
}

internal sealed class FakeMessage : FakeTrigger, IMessageInterrupt
{

    public (ulong Address, uint Data)? Routed { get; private set; }

    public int Routes { get; private set; }

    public bool Route(ulong address, uint data)
    {
        if (Routed != (address, data))
            Routes++;
        Routed = (address, data);
        return true;
    }

    public void Unroute()
    {
        // Its signals would be lost.
        Assert.Empty(Attached);
        Routed = null;
    }
}

internal sealed class FakeLine : IInterruptLine
{
    public bool High { get; private set; }

    public int Rises { get; private set; }

    public void Set(bool asserted)
    {
        if (asserted && !High)
            Rises++;
        High = asserted;
    }
}
