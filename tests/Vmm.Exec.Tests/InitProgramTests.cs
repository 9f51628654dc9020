using System.Buffers.Binary;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Iced.Intel;

namespace Vmm.Exec.Tests;

/// <summary>The guest's init as a file: that it is a program, and what is in it. What it does is seen in guests (Vmm.Boot.Tests).</summary>
public sealed class InitProgramTests
{
    private const int ProgramHeaders = 64, ProgramHeaderSize = 56;

    [Fact]
    public void It_is_a_static_program_whose_segments_lie_apart()
    {
        byte[] file = InitProgram.Build(Plan(["true"]));
        Assert.Equal("\u007fELF\u0002\u0001\u0001"u8.ToArray(), file[..7]);
        Assert.Equal(2, BinaryPrimitives.ReadUInt16LittleEndian(file.AsSpan(16)));
        Assert.Equal(62, BinaryPrimitives.ReadUInt16LittleEndian(file.AsSpan(18)));
        Assert.Equal(0x40_0000UL, BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(24)));
        ulong end = 0;
        foreach ((uint type, uint flags, ulong offset, ulong address, ulong length, ulong memory) in Segments(file))
        {
            if (type != 1)
                continue;
            Assert.True(address >= end, "segments overlap");
            end = address + memory;
            Assert.True(offset + length <= (ulong)file.Length);
            Assert.Equal(offset % 4096, address % 4096);
            // Nothing is written to and executed.
            Assert.NotEqual(3U, flags & 3);
        }
    }

    [Fact]
    public void Its_code_is_whole_and_stays_in_itself()
    {
        byte[] file = InitProgram.Build(Plan(["sh", "-c", "exit 7"]) with { Modules = [new KernelModule("/m/a.ko", true), new KernelModule("/m/b.ko.xz", false)] });
        (_, _, ulong offset, ulong start, ulong length, _) = Segments(file)[0];
        var decoder = Iced.Intel.Decoder.Create(64, new ByteArrayCodeReader(file, (int)offset, (int)length), start);
        int calls = 0;
        while (decoder.IP < start + length)
        {
            decoder.Decode(out Instruction instruction);
            Assert.False(instruction.IsInvalid);
            calls += instruction.Mnemonic == Mnemonic.Syscall ? 1 : 0;
            if (instruction.Op0Kind == OpKind.NearBranch64)
                Assert.InRange(instruction.NearBranchTarget, start, start + length - 1);
        }
        Assert.InRange(calls, 60, 200);
    }

    [Theory]
    [InlineData("")]
    [InlineData("with space")]
    [InlineData("two\nlines")]
    [InlineData("üñï — ☃")]
    public void Arguments_are_in_it_as_they_are(string argument)
    {
        string[] command = ["/bin/echo", argument, "", argument + argument, "last"];
        Assert.Equal(command, Strings(InitProgram.Build(Plan(command)), command));
    }

    [Fact]
    public void A_large_environment_is_in_it()
    {
        string[] environment = [.. Enumerable.Range(0, 1000).Select(i => $"VARIABLE_{i}={new string((char)('a' + (i % 26)), 100)}")];
        Assert.True(environment.Sum(variable => variable.Length) > 100_000);
        byte[] file = InitProgram.Build(Plan(["env"]) with { Environment = environment });
        Assert.Equal(environment, Strings(file, environment));
    }

    [Fact]
    public void Any_arguments_are_in_it()
    {
        Prop.ForAll<NonNull<string>[]>(texts =>
        {
            string[] command = ["/x", .. texts.Select(text => text.Get.Replace("\0", "", StringComparison.Ordinal)).Where(IsText)];
            return Strings(InitProgram.Build(Plan(command)), command).SequenceEqual(command);
        }).QuickCheckThrowOnFailure();
    }

    [Theory]
    [InlineData("ls", "/a:/b/", new[] { "/a/ls", "/b/ls" })]
    [InlineData("ls", "/a::/a", new[] { "/a/ls", "./ls" })]
    [InlineData("./ls", "/a", new[] { "./ls" })]
    [InlineData("/bin/ls", "/a", new[] { "/bin/ls" })]
    [InlineData("", "/a", new string[0])]
    public void A_command_is_looked_for_as_execvp_does(string command, string path, string[] expected) =>
        Assert.Equal(expected, InitPlan.CandidatesFor(command, path));

    [Theory]
    [InlineData("/", true, true)]
    [InlineData("/tmp", false, true)]
    [InlineData("/tmp/deep/er", false, true)]
    [InlineData("/tmpfiles", true, true)]
    [InlineData("/run/user/0", true, false)]
    public void The_tree_keeps_the_directory_where_the_command_begins(string directory, bool temporary, bool run)
    {
        IReadOnlyList<InitMount> mounts = InitPlan.MountsFor(directory);
        Assert.Equal(temporary, mounts.Any(mount => mount.Directory == "/tmp"));
        Assert.Equal(run, mounts.Any(mount => mount.Directory == "/run"));
        // Each after the one that it lies in.
        for (int i = 0; i < mounts.Count; i++)
            Assert.DoesNotContain(mounts.Take(i), earlier => earlier.Directory.StartsWith(mounts[i].Directory + "/", StringComparison.Ordinal));
    }

    [Fact]
    public void Its_codes_say_what_failed()
    {
        InitPlan plan = Plan(["./run.sh"]) with { Modules = [new KernelModule("/m/kernel/fs/overlay.ko", true)], Directory = "/not/there" };
        Assert.Equal(InitEnd.Exited, new InitCode(7).End);
        Assert.Equal(7, new InitCode(7).Low);
        foreach ((InitStep step, int index, int errno, string says) in new[]
        {
            (InitStep.LoadModule, 0, 8, "overlay.ko: Exec format error (errno 8); give the modules of this very kernel"),
            (InitStep.MountShare, 0, 19, "CONFIG_VIRTIO_FS"),
            (InitStep.MountShare, 0, 22, "CONFIG_VIRTIO_PCI"),
            (InitStep.MountOverlay, 0, 19, "CONFIG_OVERLAY_FS"),
            (InitStep.Mount, 0, 2, "proc on /proc: No such file or directory"),
            (InitStep.Mount, 200, 2, "0x0306c802"),
            (InitStep.OpenPort, 2, 19, "standard error"),
            (InitStep.ChangeDirectory, 0, 2, "'/not/there'"),
        })
        {
            var code = new InitCode(InitCode.Failure(step, index) | (uint)errno);
            Assert.Equal((InitEnd.Failed, step, index, errno), (code.End, code.Step, code.Index, code.Low));
            Assert.Contains(says, InitErrors.Describe(plan, code), StringComparison.Ordinal);
        }
        // Whatever a guest says is a sentence.
        for (uint value = 0; value < 1 << 16; value++)
            Assert.NotEmpty(InitErrors.Describe(plan, new InitCode(3U << 24 | value << 8)));
    }

    private static InitPlan Plan(string[] command) => new()
    {
        Mounts = InitPlan.MountsFor("/"),
        Candidates = InitPlan.CandidatesFor(command[0], "/usr/bin:/bin"),
        Arguments = command,
        Environment = ["PATH=/bin"],
    };

    private static bool IsText(string text) => Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)) == text;

    private static (uint Type, uint Flags, ulong Offset, ulong Address, ulong Length, ulong Memory)[] Segments(byte[] file)
    {
        int count = BinaryPrimitives.ReadUInt16LittleEndian(file.AsSpan(56));
        return [.. Enumerable.Range(0, count).Select(i =>
        {
            ReadOnlySpan<byte> b = file.AsSpan(ProgramHeaders + (i * ProgramHeaderSize));
            return (BinaryPrimitives.ReadUInt32LittleEndian(b), BinaryPrimitives.ReadUInt32LittleEndian(b[4..]), BinaryPrimitives.ReadUInt64LittleEndian(b[8..]),
                BinaryPrimitives.ReadUInt64LittleEndian(b[16..]), BinaryPrimitives.ReadUInt64LittleEndian(b[32..]), BinaryPrimitives.ReadUInt64LittleEndian(b[40..]));
        })];
    }

    /// <summary>The table of pointers that leads to these texts, followed as the kernel follows it; empty where there is none.</summary>
    private static string[] Strings(byte[] file, string[] wanted)
    {
        (_, _, ulong offset, ulong address, ulong length, _) = Segments(file)[1];
        byte[] data = file[(int)offset..(int)(offset + length)];
        for (int table = 0; table + ((wanted.Length + 1) * 8) <= data.Length; table += 8)
        {
            string[] found = Follow(data, address, table, wanted.Length);
            if (found.SequenceEqual(wanted))
                return found;
        }
        return [];
    }

    private static string[] Follow(byte[] data, ulong address, int table, int count)
    {
        var texts = new List<string>();
        for (int i = 0; i <= count; i++)
        {
            ulong pointer = BinaryPrimitives.ReadUInt64LittleEndian(data.AsSpan(table + (i * 8)));
            if (i == count)
                return pointer == 0 ? [.. texts] : [];
            if (pointer < address || pointer >= address + (ulong)data.Length)
                return [];
            ReadOnlySpan<byte> text = data.AsSpan((int)(pointer - address));
            int end = text.IndexOf((byte)0);
            if (end < 0)
                return [];
            texts.Add(Encoding.UTF8.GetString(text[..end]));
        }
        return [];
    }
}
