using System.Buffers.Binary;
using System.Text;
using Iced.Intel;

namespace Vmm.Exec.Tests;

/// <summary>The guest's init as a file: what is in it, and that it is a program. What it does is seen in guests (Vmm.Boot.Tests).</summary>
public sealed class InitProgramTests
{
    [Fact]
    public void It_is_a_static_program()
    {
        byte[] file = InitProgram.Build(Plan("true"));
        System.IO.File.WriteAllBytes("/tmp/init.elf", file);
        Assert.Equal("\u007fELF"u8.ToArray(), file[..4]);
    }

    private static InitPlan Plan(params string[] command) => new()
    {
        Mounts = InitPlan.MountsFor("/"),
        Candidates = InitPlan.CandidatesFor(command[0], "/usr/bin:/bin"),
        Arguments = command,
        Environment = ["PATH=/bin"],
    };
}
