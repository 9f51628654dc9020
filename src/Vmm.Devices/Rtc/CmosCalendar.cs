using static Vmm.Devices.Rtc.CmosRegisters;

namespace Vmm.Devices.Rtc;

/// <summary>Converts between time and the clock's registers, in the format that register B selects.</summary>
internal static class CmosCalendar
{
    /// <summary>Whether a register holds a part of the time (not of the alarm).</summary>
    public static bool IsTime(int index) =>
        index is Seconds or Minutes or Hours or WeekDay or DayOfMonth or Month or Year or Century;

    /// <summary>Writes a time into the registers.</summary>
    public static void Encode(DateTime time, Span<byte> ram)
    {
        byte b = ram[B];
        ram[Seconds] = ToFormat(time.Second, b);
        ram[Minutes] = ToFormat(time.Minute, b);
        ram[Hours] = EncodeHour(time.Hour, b);
        ram[WeekDay] = ToFormat((int)time.DayOfWeek + 1, b);
        ram[DayOfMonth] = ToFormat(time.Day, b);
        ram[Month] = ToFormat(time.Month, b);
        ram[Year] = ToFormat(time.Year % 100, b);
        ram[Century] = ToFormat(time.Year / 100, b);
    }

    /// <summary>
    /// Reads a time from the registers. Parts out of range carry over, as 31 February does while a date is set piece by piece.
    /// </summary>
    public static DateTime Decode(ReadOnlySpan<byte> ram)
    {
        byte b = ram[B];
        int year = Math.Clamp(FromFormat(ram[Century], b) * 100 + FromFormat(ram[Year], b), 1, 9000);
        return new DateTime(year, 1, 1, 0, 0, 0, DateTimeKind.Utc)
            .AddMonths(FromFormat(ram[Month], b) - 1)
            .AddDays(FromFormat(ram[DayOfMonth], b) - 1)
            .AddHours(DecodeHour(ram[Hours], b))
            .AddMinutes(FromFormat(ram[Minutes], b))
            .AddSeconds(FromFormat(ram[Seconds], b));
    }

    /// <summary>
    /// The largest part of the alarm that a time does not match. 0xC0 and up in an alarm register matches anything (data sheet,
    /// "Alarm").
    /// </summary>
    public static AlarmPart AlarmMismatch(DateTime time, ReadOnlySpan<byte> ram)
    {
        byte b = ram[B];
        if (!Matches(ram[HoursAlarm], EncodeHour(time.Hour, b)))
            return AlarmPart.Hour;
        if (!Matches(ram[MinutesAlarm], ToFormat(time.Minute, b)))
            return AlarmPart.Minute;
        return Matches(ram[SecondsAlarm], ToFormat(time.Second, b)) ? AlarmPart.None : AlarmPart.Second;
    }

    /// <summary>Whether there is a time of day that the alarm matches.</summary>
    public static bool AlarmPossible(ReadOnlySpan<byte> ram)
    {
        byte b = ram[B];
        bool hour = ram[HoursAlarm] >= 0xC0, minute = ram[MinutesAlarm] >= 0xC0, second = ram[SecondsAlarm] >= 0xC0;
        for (int i = 0; i < 60; i++)
        {
            byte value = ToFormat(i, b);
            minute |= ram[MinutesAlarm] == value;
            second |= ram[SecondsAlarm] == value;
            hour |= i < 24 && ram[HoursAlarm] == EncodeHour(i, b);
        }
        return hour && minute && second;
    }

    /// <summary>A part of the alarm.</summary>
    public enum AlarmPart
    {
        /// <summary>No part.</summary>
        None,

        /// <summary>The second.</summary>
        Second,

        /// <summary>The minute.</summary>
        Minute,

        /// <summary>The hour.</summary>
        Hour,
    }

    private static bool Matches(byte alarm, byte now) => alarm >= 0xC0 || alarm == now;

    private static byte EncodeHour(int hour, byte b)
    {
        if ((b & B2412) != 0)
            return ToFormat(hour, b);
        int half = hour % 12 == 0 ? 12 : hour % 12;
        return (byte)(ToFormat(half, b) | (hour >= 12 ? 0x80 : 0));
    }

    private static int DecodeHour(byte value, byte b)
    {
        if ((b & B2412) != 0)
            return FromFormat(value, b);
        return FromFormat((byte)(value & 0x7F), b) % 12 + ((value & 0x80) != 0 ? 12 : 0);
    }

    private static byte ToFormat(int value, byte b) => (byte)((b & BDm) != 0 ? value : value / 10 * 16 + value % 10);

    private static int FromFormat(byte value, byte b) => (b & BDm) != 0 ? value : (value >> 4) * 10 + (value & 0x0F);
}
