using Vmm.Core.Bus;
using Vmm.Devices.I8042;
using static Vmm.Devices.I8042.I8042Registers;

namespace Vmm.Devices.Tests.I8042;

public sealed class I8042ControllerTests
{
    private readonly FakeLine _line = new();
    private readonly FakeEvents _events = new();
    private readonly I8042Controller _controller;

    public I8042ControllerTests() => _controller = new I8042Controller(_line, _events);

    private byte Status => _controller.CommandPort.ReadByte(0);

    [Fact]
    public void Linux_probe_finds_a_keyboard_and_at_once_that_there_is_no_mouse()
    {
        // i8042_controller_init(): the command byte reads the same twice, translation on.
        byte ctr = Ask(CommandReadCtr);
        Assert.Equal(ctr, Ask(CommandReadCtr));
        Assert.Equal(CtrTranslate, ctr & CtrTranslate);
        Assert.NotEqual(0, Status & StatusUnlocked);
        Assert.Equal(0x55, Ask(CommandSelfTest));
        // i8042_check_aux(): the loop command answers, but not as from an auxiliary port; then the wire test fails.
        Command(CommandWriteAuxiliaryBuffer);
        Data(0x5A);
        Assert.Equal(StatusObf, Status & (StatusObf | StatusAuxiliary));
        Assert.Equal(0x01, Ask(CommandAuxiliaryTest));
        Assert.Equal(0x00, Ask(CommandKeyboardTest));
        // The interrupt and the keyboard on, and the command byte is what was written.
        Command(CommandWriteCtr);
        Data((ctr | CtrKeyboardInterrupt) & ~CtrKeyboardDisable);
        Assert.Equal((ctr | CtrKeyboardInterrupt) & ~CtrKeyboardDisable, Ask(CommandReadCtr));
        // atkbd_probe(): the identity, of which the controller translates the second byte.
        Assert.Equal([0xFA, 0xAB, 0x41], Keyboard(0xF2));
        Assert.Equal([0xFA], Keyboard(0xED));
        Assert.Equal([0xFA], Keyboard(0x00));
        Assert.Equal([0xFA], Keyboard(0xF3));
        Assert.Equal([0xFA], Keyboard(0x00));
        Assert.Equal([0xFA], Keyboard(0xF4));
        Assert.Equal([0xFA, 0xAA], Keyboard(0xFF));
        Assert.Equal(0, Status & StatusObf);
    }

    [Fact]
    public void Without_translation_the_identity_and_the_scan_code_set_are_plain()
    {
        Command(CommandWriteCtr);
        Data(CtrSystem);
        Assert.Equal([0xFA, 0xAB, 0x83], Keyboard(0xF2));
        Assert.Equal([0xFA], Keyboard(0xF0));
        Assert.Equal([0xFA, 0x02], Keyboard(0x00));
        Assert.Equal([0xFA], Keyboard(0xF5));
        Assert.Equal([0xEE], Keyboard(0xEE));
        Assert.Equal([0xFE], Keyboard(0x12));
    }

    [Fact]
    public void Ctrl_alt_del_is_translated_to_set_1_with_an_interrupt_for_each_byte()
    {
        Assert.True(_controller.SendCtrlAltDel());
        List<byte> codes = [];
        while (_line.High)
            codes.Add(_controller.DataPort.ReadByte(0));
        Assert.Equal([0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D], codes);
        Assert.Equal(8, _line.RisingEdges);
    }

    [Fact]
    public void Ctrl_alt_del_is_in_set_2_without_translation()
    {
        Command(CommandWriteCtr);
        Data(CtrKeyboardInterrupt);
        Assert.True(_controller.SendCtrlAltDel());
        Assert.Equal(ScanCodes.CtrlAltDelete.ToArray(), Drain());
    }

    [Fact]
    public void Ctrl_alt_del_tells_when_nobody_listens()
    {
        Keyboard(0xF5);
        Assert.False(_controller.SendCtrlAltDel());
        Keyboard(0xF4);
        Command(CommandKeyboardDisable);
        Assert.False(_controller.SendCtrlAltDel());
        Command(CommandKeyboardEnable);
        Assert.True(_controller.SendCtrlAltDel());
        Assert.True(_controller.SendCtrlAltDel());
        Assert.False(_controller.SendCtrlAltDel()); // The queue is full: nothing reads.
    }

    [Fact]
    public void A_disabled_keyboard_keeps_its_bytes()
    {
        _controller.SendCtrlAltDel();
        Command(CommandKeyboardDisable);
        Assert.False(_line.High);
        Assert.Equal(0, Status & StatusObf);
        Assert.Equal(0x55, Ask(CommandSelfTest));
        Command(CommandKeyboardEnable);
        Assert.True(_line.High);
        Assert.Equal(0x1D, _controller.DataPort.ReadByte(0));
    }

    [Theory]
    [InlineData(0xFE, true)]
    [InlineData(0xF0, true)]
    [InlineData(0xFF, false)]
    public void Pulsing_bit_0_of_the_output_port_resets(int command, bool resets)
    {
        Command(command);
        Assert.Equal(resets ? [GuestEvent.Reset] : [], _events.Seen);
    }

    [Fact]
    public void Clearing_bit_0_of_the_output_port_resets()
    {
        Command(CommandWriteOutputPort);
        Data(0x03);
        Assert.Empty(_events.Seen);
        Assert.Equal(0x03, Ask(CommandReadOutputPort));
        Command(CommandWriteOutputPort);
        Data(0x02);
        Assert.Equal([GuestEvent.Reset], _events.Seen);
    }

    [Fact]
    public void A_byte_to_the_mouse_that_is_not_there_times_out()
    {
        Command(CommandWriteAuxiliary);
        Data(0xFF);
        Assert.Equal(StatusObf | StatusAuxiliary | StatusTimeout, Status & (StatusObf | StatusAuxiliary | StatusTimeout));
        Assert.Equal(0xFE, _controller.DataPort.ReadByte(0));
        Command(CommandAuxiliaryEnable);
        Assert.Equal(0, Ask(CommandReadCtr) & CtrAuxiliaryDisable);
        Command(CommandAuxiliaryDisable);
        Assert.Equal(CtrAuxiliaryDisable, Ask(CommandReadCtr) & CtrAuxiliaryDisable);
    }

    [Theory]
    [InlineData(0x1C, 0x1E)] // A
    [InlineData(0x5A, 0x1C)] // Enter
    [InlineData(0x29, 0x39)] // Space
    [InlineData(0x76, 0x01)] // Escape
    [InlineData(0x83, 0x41)] // F7
    [InlineData(0x07, 0x58)] // F12
    [InlineData(0xE0, 0xE0)]
    [InlineData(0xFA, 0xFA)]
    public void Translation_is_the_PCs(int set2, int set1) => Assert.Equal(set1, ScanCodes.Translate((byte)set2));

    [Fact]
    public void Translation_gives_each_key_another_code() =>
        Assert.Equal(128, Enumerable.Range(0, 128).Select(code => ScanCodes.Translate((byte)code)).Distinct().Count());

    [Fact]
    public void A_saved_controller_comes_back_with_its_queue_and_line()
    {
        Keyboard(0xF4);
        _controller.SendCtrlAltDel();
        for (int i = 0; i < 4; i++)
            _controller.DataPort.ReadByte(0);
        Command(CommandWriteOutputPort);
        I8042State state = _controller.Save();
        var line = new FakeLine();
        var restored = new I8042Controller(line, _events);
        restored.Restore(state);
        Assert.Equal(state.Queue, restored.Save().Queue);
        Assert.Equal(state with { Queue = [] }, restored.Save() with { Queue = [] });
        Assert.True(line.High);
        Assert.Equal(Status, restored.CommandPort.ReadByte(0));
        restored.DataPort.WriteByte(0, 0x02); // The parameter that was due.
        Assert.Equal([GuestEvent.Reset], _events.Seen);
        List<byte> mine = Drain(), theirs = [];
        while ((restored.CommandPort.ReadByte(0) & StatusObf) != 0)
            theirs.Add(restored.DataPort.ReadByte(0));
        Assert.Equal([0xE0, 0xD3, 0xB8, 0x9D], mine);
        Assert.Equal(mine, theirs);
    }

    [Fact]
    public void Reset_empties_everything()
    {
        _controller.SendCtrlAltDel();
        Command(CommandWriteCtr);
        _controller.Reset();
        Assert.False(_line.High);
        Assert.Equal(0, Status & StatusObf);
        var fresh = new I8042Controller(new FakeLine(), _events).Save();
        Assert.Equal(fresh with { Queue = [] }, _controller.Save() with { Queue = [] });
    }

    private void Command(int command) => _controller.CommandPort.WriteByte(0, command);

    private void Data(int value) => _controller.DataPort.WriteByte(0, value);

    private byte Ask(int command)
    {
        Command(command);
        Assert.NotEqual(0, Status & StatusObf);
        return _controller.DataPort.ReadByte(0);
    }

    private List<byte> Keyboard(int command)
    {
        Data(command);
        return Drain();
    }

    private List<byte> Drain()
    {
        List<byte> bytes = [];
        while ((Status & StatusObf) != 0)
            bytes.Add(_controller.DataPort.ReadByte(0));
        return bytes;
    }
}
