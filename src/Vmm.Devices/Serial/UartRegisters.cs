namespace Vmm.Devices.Serial;

/// <summary>Register numbers and bits of the 16550, named as in National's PC16550D data sheet (table II, sections 8.1 to 8.9).</summary>
public static class UartRegisters
{
    /// <summary>I/O port of COM1.</summary>
    public const ushort Com1Port = 0x3F8;

    /// <summary>ISA interrupt of COM1.</summary>
    public const int Com1Irq = 4;

    /// <summary>How many ports the device takes.</summary>
    public const int PortCount = 8;

    /// <summary>Bytes in each FIFO (section 8.4).</summary>
    public const int FifoSize = 16;

    /// <summary>Receiver buffer (read), transmitter holding (write); divisor latch low with DLAB.</summary>
    public const int RbrThr = 0;

    /// <summary>Interrupt enable; divisor latch high with DLAB.</summary>
    public const int Ier = 1;

    /// <summary>Interrupt identification (read), FIFO control (write).</summary>
    public const int IirFcr = 2;

    /// <summary>Line control.</summary>
    public const int Lcr = 3;

    /// <summary>Modem control.</summary>
    public const int Mcr = 4;

    /// <summary>Line status.</summary>
    public const int Lsr = 5;

    /// <summary>Modem status.</summary>
    public const int Msr = 6;

    /// <summary>Scratch.</summary>
    public const int Scr = 7;

    /// <summary>IER: received data available (and character timeout).</summary>
    public const byte IerErbfi = 0x01;

    /// <summary>IER: transmitter holding register empty.</summary>
    public const byte IerEtbei = 0x02;

    /// <summary>IER: receiver line status.</summary>
    public const byte IerElsi = 0x04;

    /// <summary>IER: modem status.</summary>
    public const byte IerEdssi = 0x08;

    /// <summary>IIR: nothing pending (section 8.6, table IV).</summary>
    public const byte IirNone = 0x01;

    /// <summary>IIR, priority 1: receiver line status.</summary>
    public const byte IirLineStatus = 0x06;

    /// <summary>IIR, priority 2: received data reached the trigger level.</summary>
    public const byte IirReceivedData = 0x04;

    /// <summary>IIR, priority 2: received data below the trigger level has waited for four character times.</summary>
    public const byte IirCharacterTimeout = 0x0C;

    /// <summary>IIR, priority 3: transmitter holding register empty.</summary>
    public const byte IirThrEmpty = 0x02;

    /// <summary>IIR, priority 4: modem status.</summary>
    public const byte IirModemStatus = 0x00;

    /// <summary>IIR: both bits set while the FIFOs are enabled.</summary>
    public const byte IirFifosEnabled = 0xC0;

    /// <summary>FCR: FIFO enable (section 8.5).</summary>
    public const byte FcrEnable = 0x01;

    /// <summary>FCR: receiver FIFO reset; clears itself.</summary>
    public const byte FcrReceiveReset = 0x02;

    /// <summary>FCR: transmitter FIFO reset; clears itself.</summary>
    public const byte FcrTransmitReset = 0x04;

    /// <summary>LCR: divisor latch access (section 8.1).</summary>
    public const byte LcrDlab = 0x80;

    /// <summary>MCR: data terminal ready (section 8.7).</summary>
    public const byte McrDtr = 0x01;

    /// <summary>MCR: request to send.</summary>
    public const byte McrRts = 0x02;

    /// <summary>MCR: auxiliary output 1.</summary>
    public const byte McrOut1 = 0x04;

    /// <summary>MCR: auxiliary output 2; on a PC it gates the interrupt onto the bus.</summary>
    public const byte McrOut2 = 0x08;

    /// <summary>MCR: local loopback.</summary>
    public const byte McrLoop = 0x10;

    /// <summary>LSR: data ready (section 8.4).</summary>
    public const byte LsrDataReady = 0x01;

    /// <summary>LSR: overrun.</summary>
    public const byte LsrOverrun = 0x02;

    /// <summary>LSR: transmitter holding register empty.</summary>
    public const byte LsrThrEmpty = 0x20;

    /// <summary>LSR: transmitter empty.</summary>
    public const byte LsrTransmitterEmpty = 0x40;

    /// <summary>MSR: clear to send changed (section 8.8).</summary>
    public const byte MsrDeltaCts = 0x01;

    /// <summary>MSR: data set ready changed.</summary>
    public const byte MsrDeltaDsr = 0x02;

    /// <summary>MSR: ring indicator went from on to off.</summary>
    public const byte MsrTrailingRing = 0x04;

    /// <summary>MSR: carrier detect changed.</summary>
    public const byte MsrDeltaDcd = 0x08;

    /// <summary>MSR: clear to send.</summary>
    public const byte MsrCts = 0x10;

    /// <summary>MSR: data set ready.</summary>
    public const byte MsrDsr = 0x20;

    /// <summary>MSR: ring indicator.</summary>
    public const byte MsrRi = 0x40;

    /// <summary>MSR: carrier detect.</summary>
    public const byte MsrDcd = 0x80;
}
