using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;

namespace Vmm.Core.Tests.Boot.Acpi;

/// <summary>ACPICA's compiler and disassembler, as the judge of our tables.</summary>
internal static class Iasl
{
    private static readonly string? s_path =
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Append("/usr/bin")
        .Select(directory => Path.Combine(directory, "iasl")).FirstOrDefault(File.Exists);

    /// <summary>Skips the test where iasl is not installed; fails it there when the environment says that nothing may be skipped.</summary>
    public static void Require()
    {
        const string Missing = "iasl is not installed: apt-get install acpica-tools";
        if (s_path == null && Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1")
            Assert.Fail(Missing);
        Skip.If(s_path == null, Missing);
    }

    /// <summary>Disassembles a table; fails on whatever iasl finds wrong with it.</summary>
    public static string Disassemble(ReadOnlySpan<byte> table)
    {
        using TemporaryDirectory directory = new();
        File.WriteAllBytes(Path.Combine(directory.Path, "t.dat"), table.ToArray());
        (int code, string output) = Run(directory.Path, "-d", "t.dat");
        string source = File.ReadAllText(Path.Combine(directory.Path, "t.dsl"));
        Assert.True(code == 0 && !MentionsTrouble(output), output);
        Assert.DoesNotContain("Incorrect checksum", source, StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain("Invalid", source, StringComparison.Ordinal);
        Assert.DoesNotContain("**** ", source, StringComparison.Ordinal);
        return source;
    }

    /// <summary>Compiles source; fails on errors and warnings.</summary>
    public static byte[] Compile(string source)
    {
        using TemporaryDirectory directory = new();
        File.WriteAllText(Path.Combine(directory.Path, "t.dsl"), source);
        // Without -oa the compiler would shorten names and fold constants on its own.
        (int code, string output) = Run(directory.Path, "-oa", "-p", "t", "t.dsl");
        Assert.True(code == 0 && !MentionsTrouble(output), output + source);
        return File.ReadAllBytes(Path.Combine(directory.Path, "t.aml"));
    }

    /// <summary>Disassembles a table, compiles that again and compares: all but who made it, and so the checksum, is the same.</summary>
    /// <returns>The disassembly.</returns>
    public static string RoundTrip(ReadOnlySpan<byte> table)
    {
        string source = Disassemble(table);
        byte[] again = Compile(source);
        byte[] ours = table.ToArray();
        if (table[..4].SequenceEqual("FACS"u8))
        {
            Assert.Equal(Convert.ToHexString(ours), Convert.ToHexString(again));
            return source;
        }
        foreach (byte[] bytes in (byte[][])[ours, again])
        {
            bytes[9] = 0;
            bytes.AsSpan(28, 8).Clear();
        }
        Assert.Equal(Convert.ToHexString(ours), Convert.ToHexString(again));
        return source;
    }

    private static bool MentionsTrouble(string output) =>
        output.Split('\n').Any(line =>
            (line.Contains("Error", StringComparison.OrdinalIgnoreCase) || line.Contains("Warning", StringComparison.OrdinalIgnoreCase))
            && !line.Contains("0 Errors, 0 Warnings", StringComparison.Ordinal));

    private static (int Code, string Output) Run(string directory, params string[] arguments)
    {
        ProcessStartInfo start = new(s_path!, arguments)
        {
            WorkingDirectory = directory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd() + error.GetAwaiter().GetResult();
        process.WaitForExit();
        return (process.ExitCode, output);
    }

    private sealed class TemporaryDirectory : IDisposable
    {
        public string Path { get; } = Directory.CreateTempSubdirectory("vmm-iasl-").FullName;

        public void Dispose() => Directory.Delete(Path, recursive: true);
    }
}

/// <summary>Finds tables the way a guest does: from the RSDP's bytes on, checking each signature and checksum.</summary>
internal sealed class AcpiTableReader
{
    private readonly byte[] _area;
    private readonly ulong _start;

    public AcpiTableReader(byte[] area, ulong start)
    {
        _area = area;
        _start = start;
        Assert.Equal("RSD PTR ", Encoding.ASCII.GetString(area, 0, 8));
        Assert.Equal(0, Sum(area.AsSpan(0, 20)));
        Assert.Equal(0, Sum(area.AsSpan(0, 36)));
        byte[] xsdt = At(BinaryPrimitives.ReadUInt64LittleEndian(area.AsSpan(24)));
        Tables.Add("RSDP", area[..36]);
        Tables.Add("XSDT", xsdt);
        for (int i = 36; i < xsdt.Length; i += 8)
            Add(BinaryPrimitives.ReadUInt64LittleEndian(xsdt.AsSpan(i)));
        byte[] fadt = Tables["FACP"];
        Add(BinaryPrimitives.ReadUInt64LittleEndian(fadt.AsSpan(140)));
        Assert.Equal(BinaryPrimitives.ReadUInt64LittleEndian(fadt.AsSpan(140)), BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(40)));
        int facs = (int)(BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(36)) - start);
        Assert.Equal(0, facs % 64);
        Tables.Add("FACS", area[facs..(facs + 64)]);
    }

    public Dictionary<string, byte[]> Tables { get; } = [];

    private void Add(ulong address)
    {
        byte[] table = At(address);
        Tables.Add(Encoding.ASCII.GetString(table, 0, 4), table);
    }

    private byte[] At(ulong address)
    {
        int at = checked((int)(address - _start));
        byte[] table = _area[at..(at + BinaryPrimitives.ReadInt32LittleEndian(_area.AsSpan(at + 4)))];
        Assert.Equal(0, Sum(table));
        return table;
    }

    private static byte Sum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte b in bytes)
            sum += b;
        return sum;
    }
}
