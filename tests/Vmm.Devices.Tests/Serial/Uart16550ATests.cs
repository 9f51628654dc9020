using FsCheck;
using FsCheck.Fluent;
using Vmm.Devices.Serial;
using static Vmm.Devices.Serial.UartRegisters;

namespace Vmm.Devices.Tests.Serial;

public sealed class Uart16550ATests
{
    private readonly FakeLine _line = new();
    private readonly ListSink _sink = new();
    private readonly Uart16550A _uart;

    public Uart16550ATests() => _uart = new Uart16550A(_sink, _line);

    [Fact]
    public void Reset_values_are_those_of_the_data_sheet()
    {
        Assert.Equal(0x00, _uart.ReadByte(Ier));
        Assert.Equal(IirNone, _uart.ReadByte(IirFcr));
        Assert.Equal(0x00, _uart.ReadByte(Lcr));
        Assert.Equal(0x00, _uart.ReadByte(Mcr));
        Assert.Equal(LsrThrEmpty | LsrTransmitterEmpty, _uart.ReadByte(Lsr));
        Assert.Equal(MsrDcd | MsrDsr | MsrCts, _uart.ReadByte(Msr));
        Assert.Equal(0xFF, _uart.ReadByte(8));
    }

    [Fact]
    public void Scratch_and_divisor_keep_what_is_written()
    {
        _uart.WriteByte(Scr, 0xA5);
        _uart.WriteByte(Lcr, 0x83);
        _uart.WriteByte(RbrThr, 0x34);
        _uart.WriteByte(Ier, 0x12);
        Assert.Equal(0x34, _uart.ReadByte(RbrThr));
        Assert.Equal(0x12, _uart.ReadByte(Ier));
        _uart.WriteByte(Lcr, 0x03);
        Assert.Equal(0x00, _uart.ReadByte(Ier));
        Assert.Equal(0xA5, _uart.ReadByte(Scr));
        Assert.Empty(_sink.Bytes);
    }

    [Fact]
    public void Linux_autoconfig_finds_a_16550A()
    {
        // 8250_port.c, autoconfig(): the IER test, the loopback test, then the FIFO identification.
        _uart.WriteByte(Ier, 0);
        Assert.Equal(0, _uart.ReadByte(Ier) & 0x0F);
        _uart.WriteByte(Ier, 0x0F);
        Assert.Equal(0x0F, _uart.ReadByte(Ier) & 0x0F);
        _uart.WriteByte(Ier, 0);
        _uart.WriteByte(Mcr, McrLoop | 0x0A);
        Assert.Equal(0x90, _uart.ReadByte(Msr) & 0xF0);
        _uart.WriteByte(Mcr, 0);
        _uart.WriteByte(Lcr, 0xBF);
        _uart.WriteByte(IirFcr, 0);
        _uart.WriteByte(Lcr, 0);
        _uart.WriteByte(IirFcr, FcrEnable);
        Assert.Equal(3, _uart.ReadByte(IirFcr) >> 6);
        // autoconfig_16550a(): neither an EFR, nor 64-byte FIFOs, nor a UUE bit.
        _uart.WriteByte(Lcr, 0x80);
        Assert.NotEqual(0, _uart.ReadByte(IirFcr));
        _uart.WriteByte(Lcr, 0xBF);
        Assert.NotEqual(0, _uart.ReadByte(IirFcr));
        _uart.WriteByte(Lcr, 0);
        _uart.WriteByte(IirFcr, FcrEnable | 0x20);
        Assert.Equal(0xC0, _uart.ReadByte(IirFcr) & 0xE0);
        _uart.WriteByte(Ier, 0x40);
        Assert.Equal(0, _uart.ReadByte(Ier) & 0x40);
    }

    [Fact]
    public void Linux_tests_for_transmitter_bugs_find_none()
    {
        // serial8250_do_startup(): THRE has to be raised by each enabling of its interrupt.
        _uart.WriteByte(Ier, IerEtbei);
        int first = _uart.ReadByte(IirFcr);
        _uart.WriteByte(Ier, 0);
        _uart.WriteByte(Ier, IerEtbei);
        int second = _uart.ReadByte(IirFcr);
        _uart.WriteByte(Ier, 0);
        Assert.Equal(IirThrEmpty, first);
        Assert.Equal(IirThrEmpty, second);
        // The TXEN test: transmitter empty, interrupt enabled, interrupt there.
        _uart.WriteByte(Ier, IerEtbei);
        Assert.NotEqual(0, _uart.ReadByte(Lsr) & LsrTransmitterEmpty);
        Assert.Equal(0, _uart.ReadByte(IirFcr) & IirNone);
    }

    [Fact]
    public void OpenBSD_probe_sees_no_interrupt_bits_that_must_be_zero()
    {
        _uart.WriteByte(Lcr, 3);
        _uart.WriteByte(Ier, 0);
        Assert.Equal(0, _uart.ReadByte(IirFcr) & 0x38);
    }

    [Fact]
    public void Transmitting_raises_THRE_again_and_reading_the_identification_lowers_it()
    {
        _uart.WriteByte(Mcr, McrOut2);
        _uart.WriteByte(Ier, IerEtbei);
        Assert.True(_line.High);
        Assert.Equal(IirThrEmpty, _uart.ReadByte(IirFcr));
        Assert.False(_line.High);
        _uart.WriteByte(RbrThr, 'a');
        Assert.True(_line.High);
        Assert.Equal(2, _line.RisingEdges);
        Assert.Equal("a"u8.ToArray(), _sink.Bytes);
    }

    [Fact]
    public void Out2_gates_the_interrupt()
    {
        _uart.WriteByte(Ier, IerErbfi);
        _uart.Receive("x"u8);
        Assert.False(_line.High);
        _uart.WriteByte(Mcr, McrOut2);
        Assert.True(_line.High);
        _uart.WriteByte(Mcr, 0);
        Assert.False(_line.High);
    }

    [Fact]
    public void Interrupts_come_in_the_order_of_their_priorities()
    {
        _uart.WriteByte(IirFcr, FcrEnable);
        _uart.WriteByte(Mcr, McrLoop | McrOut2);
        _uart.ReadByte(Msr);
        for (int i = 0; i < 17; i++)
            _uart.WriteByte(RbrThr, i);
        _uart.WriteByte(Mcr, McrLoop | McrOut2 | McrRts); // CTS changes.
        _uart.WriteByte(Ier, 0x0F);
        Assert.Equal(0xC0 | IirLineStatus, _uart.ReadByte(IirFcr));
        Assert.Equal(LsrOverrun, _uart.ReadByte(Lsr) & LsrOverrun);
        Assert.Equal(0, _uart.ReadByte(Lsr) & LsrOverrun);
        for (int i = 0; i < 16; i++)
        {
            Assert.Equal(0xC0 | IirReceivedData, _uart.ReadByte(IirFcr));
            Assert.Equal(i, _uart.ReadByte(RbrThr));
        }
        Assert.Equal(0xC0 | IirThrEmpty, _uart.ReadByte(IirFcr));
        Assert.Equal(0xC0 | IirModemStatus, _uart.ReadByte(IirFcr));
        Assert.True(_line.High);
        Assert.Equal(MsrDeltaCts, _uart.ReadByte(Msr) & 0x0F);
        Assert.Equal(0xC0 | IirNone, _uart.ReadByte(IirFcr));
        Assert.False(_line.High);
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 4)]
    [InlineData(2, 8)]
    [InlineData(3, 14)]
    public void Below_the_trigger_level_the_character_timeout_reports(int bits, int level)
    {
        _uart.WriteByte(IirFcr, FcrEnable | (bits << 6));
        _uart.WriteByte(Ier, IerErbfi);
        for (int count = 1; count <= 16; count++)
        {
            Assert.Equal(1, _uart.Receive([(byte)count]));
            Assert.Equal(0xC0 | (count >= level ? IirReceivedData : IirCharacterTimeout), _uart.ReadByte(IirFcr));
        }
    }

    [Fact]
    public void Fifo_control_clears_the_receiver()
    {
        _uart.WriteByte(IirFcr, FcrEnable);
        Assert.Equal(16, _uart.Receive(new byte[20]));
        _uart.WriteByte(IirFcr, FcrEnable | FcrTransmitReset);
        Assert.NotEqual(0, _uart.ReadByte(Lsr) & LsrDataReady);
        _uart.WriteByte(IirFcr, FcrEnable | FcrReceiveReset);
        Assert.Equal(0, _uart.ReadByte(Lsr) & LsrDataReady);
        Assert.Equal(16, _uart.Receive(new byte[16]));
        _uart.WriteByte(IirFcr, 0);
        Assert.Equal(0, _uart.ReadByte(Lsr) & LsrDataReady);
        Assert.Equal(1, _uart.Receive(new byte[16]));
    }

    [Fact]
    public void Loopback_returns_what_is_sent_and_keeps_the_outside_out()
    {
        int told = 0;
        _uart.ReceiveSpaceAvailable = () => told++;
        _uart.WriteByte(IirFcr, FcrEnable);
        _uart.WriteByte(Mcr, McrLoop);
        Assert.Equal(0, _uart.Receive("zz"u8));
        _uart.WriteByte(RbrThr, 'q');
        Assert.Equal((byte)'q', _uart.ReadByte(RbrThr));
        Assert.Empty(_sink.Bytes);
        Assert.Equal(0, told);
        _uart.WriteByte(Mcr, 0);
        Assert.Equal(1, told);
        Assert.Equal(2, _uart.Receive("zz"u8));
    }

    [Fact]
    public void Loopback_connects_the_modem_lines()
    {
        for (int mcr = 0; mcr < 16; mcr++)
        {
            _uart.WriteByte(Mcr, McrLoop | mcr);
            int expected = ((mcr & McrRts) != 0 ? MsrCts : 0) | ((mcr & McrDtr) != 0 ? MsrDsr : 0) |
                ((mcr & McrOut1) != 0 ? MsrRi : 0) | ((mcr & McrOut2) != 0 ? MsrDcd : 0);
            Assert.Equal(expected, _uart.ReadByte(Msr) & 0xF0);
        }
        _uart.WriteByte(Mcr, McrLoop | McrOut1);
        _uart.ReadByte(Msr);
        _uart.WriteByte(Mcr, McrLoop);
        Assert.Equal(MsrTrailingRing, _uart.ReadByte(Msr) & 0x0F);
        Assert.Equal(0, _uart.ReadByte(Msr) & 0x0F);
    }

    [Fact]
    public void Bytes_come_out_in_the_order_they_went_in()
    {
        // Positive: that many bytes are offered; negative: that many are read.
        Prop.ForAll<int[]>(steps =>
        {
            var uart = new Uart16550A(new ListSink(), new FakeLine());
            uart.WriteByte(IirFcr, FcrEnable);
            var model = new Queue<byte>();
            byte next = 0;
            foreach (int step in steps)
            {
                if (step >= 0)
                {
                    byte[] offered = new byte[step % 24];
                    for (int i = 0; i < offered.Length; i++)
                        offered[i] = (byte)(next + i);
                    int taken = uart.Receive(offered);
                    if (taken != Math.Min(offered.Length, 16 - model.Count))
                        return false;
                    for (int i = 0; i < taken; i++)
                        model.Enqueue(next++);
                }
                else
                {
                    for (int i = 0; i < -(step % 24); i++)
                    {
                        bool ready = (uart.ReadByte(Lsr) & LsrDataReady) != 0;
                        if (ready != model.Count > 0 || (uart.ReadByte(RbrThr) != (ready ? model.Dequeue() : 0)))
                            return false;
                    }
                }
            }
            return true;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));
    }

    [Fact]
    public void A_paste_of_10_MB_arrives_whole_when_the_guest_polls()
    {
        byte[] paste = Paste();
        int given = 0;
        void Feed() => given += _uart.Receive(paste.AsSpan(given));
        _uart.ReceiveSpaceAvailable = Feed;
        _uart.WriteByte(IirFcr, FcrEnable | 0xC0);
        Feed();
        for (int i = 0; i < paste.Length; i++)
        {
            if ((_uart.ReadByte(Lsr) & LsrDataReady) == 0)
                Assert.Fail($"Nothing to read after {i} bytes; {given} were given.");
            if (_uart.ReadByte(RbrThr) != paste[i])
                Assert.Fail($"Byte {i} is wrong.");
        }
        Assert.Equal(0, _uart.ReadByte(Lsr) & (LsrDataReady | LsrOverrun));
    }

    [Fact]
    public void A_paste_of_10_MB_from_another_thread_arrives_whole_by_interrupts()
    {
        byte[] paste = Paste();
        byte[] got = new byte[paste.Length];
        using var interrupt = new EdgeLine();
        var uart = new Uart16550A(_sink, interrupt);
        using var space = new SemaphoreSlim(0);
        uart.ReceiveSpaceAvailable = () => space.Release();
        uart.WriteByte(IirFcr, FcrEnable | 0xC0);
        uart.WriteByte(Mcr, McrOut2);
        uart.WriteByte(Ier, IerErbfi | IerElsi);
        bool overrun = false;
        int count = 0;
        var guest = new Thread(() =>
        {
            // An edge-triggered handler as Linux's: go on until nothing is pending, then wait for the next edge.
            while (count < got.Length && interrupt.WaitForEdge())
            {
                while ((uart.ReadByte(IirFcr) & IirNone) == 0)
                {
                    int status;
                    while (((status = uart.ReadByte(Lsr)) & LsrDataReady) != 0 && count < got.Length)
                        got[count++] = uart.ReadByte(RbrThr);
                    overrun |= (status & LsrOverrun) != 0;
                }
            }
        });
        guest.Start();
        int given = 0;
        while (given < paste.Length)
        {
            int taken = uart.Receive(paste.AsSpan(given, Math.Min(4096, paste.Length - given)));
            given += taken;
            if (taken == 0 && !space.Wait(TimeSpan.FromSeconds(20)))
                break;
        }
        Assert.True(guest.Join(TimeSpan.FromSeconds(30)), $"The guest got {count} of {given} bytes and waits.");
        Assert.False(overrun);
        Assert.True(paste.AsSpan().SequenceEqual(got));
    }

    [Fact]
    public void A_log_of_100_MB_goes_out_whole_and_allocates_nothing()
    {
        const int length = 100_000_000;
        var sink = new SequenceSink();
        var uart = new Uart16550A(sink, _line);
        uart.WriteByte(Mcr, McrOut2);
        uart.WriteByte(Ier, IerEtbei);
        uart.ReadByte(IirFcr);
        Span<byte> one = stackalloc byte[1];
        one[0] = 0;
        uart.Write(RbrThr, one);
        long before = ThreadAllocations.Start();
        for (long i = 1; i < length; i++)
        {
            if (i % 16 == 0)
                uart.Read(IirFcr, one);
            one[0] = (byte)(i * 31 >> 3);
            uart.Write(RbrThr, one);
        }
        long allocated = ThreadAllocations.Since(before);
        Assert.Equal(0, allocated);
        Assert.Equal(length, sink.Count);
        Assert.Equal(0, sink.Wrong);
    }

    [Fact]
    public void A_blocked_sink_does_not_keep_input_out()
    {
        using var blocked = new BlockingSink();
        var uart = new Uart16550A(blocked, _line);
        var guest = new Thread(() => uart.WriteByte(RbrThr, 'x'));
        guest.Start();
        Assert.True(blocked.Entered.Wait(TimeSpan.FromSeconds(10)));
        var input = new Thread(() => uart.Receive("y"u8));
        input.Start();
        Assert.True(input.Join(TimeSpan.FromSeconds(10)), "Receive waits for the sink.");
        blocked.Release.Set();
        guest.Join();
        Assert.Equal((byte)'y', uart.ReadByte(RbrThr));
    }

    [Fact]
    public void A_saved_port_comes_back_with_the_same_registers_and_line()
    {
        _uart.WriteByte(Lcr, 0x80);
        _uart.WriteUInt16(RbrThr, 0x0102);
        _uart.WriteByte(Lcr, 0x1B);
        _uart.WriteByte(IirFcr, FcrEnable | 0x80);
        _uart.WriteByte(Mcr, 0x0B);
        _uart.WriteByte(Ier, 0x07);
        _uart.WriteByte(Scr, 0x5A);
        _uart.Receive("hello, world"u8);
        _uart.ReadByte(RbrThr);
        UartState state = _uart.Save();

        var line = new FakeLine();
        var restored = new Uart16550A(new ListSink(), line);
        restored.Restore(state);
        Assert.Equal(_line.High, line.High);
        UartState again = restored.Save();
        Assert.Equal(state.Received, again.Received);
        Assert.Equal(state with { Received = [] }, again with { Received = [] });
        for (int i = 0; i < 12; i++)
        {
            for (ulong register = 0; register < 8; register++)
                Assert.Equal(_uart.ReadByte(register), restored.ReadByte(register));
        }
        Assert.Equal(_line.High, line.High);
    }

    [Fact]
    public void A_state_that_cannot_be_is_refused()
    {
        Assert.Throws<Vmm.Core.VmmException>(() => _uart.Restore(new UartState { Version = 99 }));
        Assert.Throws<Vmm.Core.VmmException>(() => _uart.Restore(new UartState { Fcr = FcrEnable, Received = new byte[17] }));
        Assert.Throws<Vmm.Core.VmmException>(() => _uart.Restore(new UartState { Received = new byte[2] }));
    }

    [Fact]
    public void Reset_tells_a_waiting_sender()
    {
        bool told = false;
        _uart.ReceiveSpaceAvailable = () => told = true;
        Assert.Equal(1, _uart.Receive("ab"u8));
        _uart.Reset();
        Assert.True(told);
        Assert.Equal(1, _uart.Receive("b"u8));
    }

    private static byte[] Paste()
    {
        byte[] paste = new byte[10_000_000];
        new Random(16550).NextBytes(paste);
        return paste;
    }

    private sealed class EdgeLine : Vmm.Core.Bus.IInterruptLine, IDisposable
    {
        private readonly SemaphoreSlim _edges = new(0);
        private bool _high;

        // The port calls this under its lock.
        public void Set(bool asserted)
        {
            if (asserted && !_high)
                _edges.Release();
            _high = asserted;
        }

        public bool WaitForEdge() => _edges.Wait(TimeSpan.FromSeconds(20));

        public void Dispose() => _edges.Dispose();
    }

    private sealed class BlockingSink : ICharacterSink, IDisposable
    {
        public ManualResetEventSlim Entered { get; } = new();

        public ManualResetEventSlim Release { get; } = new();

        public void Write(ReadOnlySpan<byte> data)
        {
            Entered.Set();
            Release.Wait();
        }

        public void Dispose()
        {
            Entered.Dispose();
            Release.Dispose();
        }
    }
}
