namespace Vmm.Devices.I8042;

/// <summary>
/// Ports, bits and commands of the keyboard controller (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary
/// Device Controller").
/// </summary>
public static class I8042Registers
{
    /// <summary>Data port.</summary>
    public const ushort DataPort = 0x60;

    /// <summary>Status (read) and command (write) port.</summary>
    public const ushort CommandPort = 0x64;

    /// <summary>ISA interrupt of the keyboard.</summary>
    public const int KeyboardIrq = 1;

    /// <summary>Status: output buffer full.</summary>
    public const byte StatusObf = 0x01;

    /// <summary>Status: the system flag of the command byte.</summary>
    public const byte StatusSystem = 0x04;

    /// <summary>Status: the last write was a command.</summary>
    public const byte StatusCommand = 0x08;

    /// <summary>Status: the keyboard is not locked.</summary>
    public const byte StatusUnlocked = 0x10;

    /// <summary>Status: the byte is from the auxiliary device.</summary>
    public const byte StatusAuxiliary = 0x20;

    /// <summary>Status: a device did not answer.</summary>
    public const byte StatusTimeout = 0x40;

    /// <summary>Command byte: keyboard interrupt enable.</summary>
    public const byte CtrKeyboardInterrupt = 0x01;

    /// <summary>Command byte: system flag (self-test passed).</summary>
    public const byte CtrSystem = 0x04;

    /// <summary>Command byte: keyboard clock off.</summary>
    public const byte CtrKeyboardDisable = 0x10;

    /// <summary>Command byte: auxiliary clock off.</summary>
    public const byte CtrAuxiliaryDisable = 0x20;

    /// <summary>Command byte: translate scan code set 2 to set 1.</summary>
    public const byte CtrTranslate = 0x40;

    /// <summary>Read the command byte.</summary>
    public const byte CommandReadCtr = 0x20;

    /// <summary>Write the command byte.</summary>
    public const byte CommandWriteCtr = 0x60;

    /// <summary>Disable the auxiliary device.</summary>
    public const byte CommandAuxiliaryDisable = 0xA7;

    /// <summary>Enable the auxiliary device.</summary>
    public const byte CommandAuxiliaryEnable = 0xA8;

    /// <summary>Test the auxiliary device's wires.</summary>
    public const byte CommandAuxiliaryTest = 0xA9;

    /// <summary>Self-test.</summary>
    public const byte CommandSelfTest = 0xAA;

    /// <summary>Test the keyboard's wires.</summary>
    public const byte CommandKeyboardTest = 0xAB;

    /// <summary>Disable the keyboard.</summary>
    public const byte CommandKeyboardDisable = 0xAD;

    /// <summary>Enable the keyboard.</summary>
    public const byte CommandKeyboardEnable = 0xAE;

    /// <summary>Read the input port.</summary>
    public const byte CommandReadInputPort = 0xC0;

    /// <summary>Read the output port.</summary>
    public const byte CommandReadOutputPort = 0xD0;

    /// <summary>Write the output port; bit 0 low resets the machine.</summary>
    public const byte CommandWriteOutputPort = 0xD1;

    /// <summary>Put a byte into the output buffer as if from the keyboard.</summary>
    public const byte CommandWriteKeyboardBuffer = 0xD2;

    /// <summary>Put a byte into the output buffer as if from the auxiliary device.</summary>
    public const byte CommandWriteAuxiliaryBuffer = 0xD3;

    /// <summary>Send a byte to the auxiliary device.</summary>
    public const byte CommandWriteAuxiliary = 0xD4;

    /// <summary>0xF0 to 0xFF pulse the output port's bits that are zero; bit 0 resets the machine.</summary>
    public const byte CommandPulse = 0xF0;
}
