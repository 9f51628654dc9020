using System.Diagnostics;
using System.Text;

namespace Vmm.Exec.Tests;

/// <summary>The initramfs: byte for byte, and as cpio(1) reads it.</summary>
public sealed class CpioArchiveTests
{
    [Fact]
    public void Its_bytes_are_those_of_the_format()
    {
        using var stream = new MemoryStream();
        var archive = new CpioArchive(stream);
        archive.AddDirectory("dev");
        archive.AddCharacterDevice("dev/console", 5, 1);
        archive.AddFile("init", "hello"u8, executable: true);
        archive.Complete();
        string zeroes = new('0', 8);
        string Header(string inode, string mode, string links, string size, string major, string minor, string name) =>
            "070701" + inode + mode + zeroes + zeroes + links + zeroes + size + zeroes + zeroes + major + minor + name + zeroes;
        string expected =
            Header("00000001", "000041ED", "00000002", zeroes, zeroes, zeroes, "00000004") + "dev\0" + "\0\0"
            + Header("00000002", "00002180", "00000001", zeroes, "00000005", "00000001", "0000000C") + "dev/console\0" + "\0\0"
            + Header("00000003", "000081ED", "00000001", "00000005", zeroes, zeroes, "00000005") + "init\0" + "\0" + "hello\0\0\0"
            + Header("00000000", zeroes, "00000001", zeroes, zeroes, zeroes, "0000000B") + "TRAILER!!!\0\0\0\0";
        Assert.Equal(expected.PadRight(512 * ((expected.Length + 511) / 512), '\0'), Encoding.ASCII.GetString(stream.ToArray()));
    }

    [Fact]
    public void Cpio_reads_it()
    {
        using var stream = new MemoryStream();
        var archive = new CpioArchive(stream);
        archive.AddDirectory("modules");
        for (int i = 0; i < 20; i++)
            archive.AddFile($"modules/{i}", new byte[i * 1001]);
        archive.Complete();
        using var cpio = Process.Start(new ProcessStartInfo("cpio", ["-itv", "--quiet"]) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        cpio.StandardInput.BaseStream.Write(stream.ToArray());
        cpio.StandardInput.Close();
        string[] lines = cpio.StandardOutput.ReadToEnd().TrimEnd().Split('\n');
        cpio.WaitForExit();
        Assert.Equal(0, cpio.ExitCode);
        Assert.Equal(21, lines.Length);
        Assert.StartsWith("drwxr-xr-x   2 root     root ", lines[0], StringComparison.Ordinal);
        Assert.Contains(" 19019 ", lines[20], StringComparison.Ordinal);
    }
}
