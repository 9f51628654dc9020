using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Tests;

public sealed unsafe class StateTests
{
    [Fact]
    public void Device_state_goes_out_by_a_pipe_and_comes_back()
    {
        // More than a pipe holds: it must not matter that the reply is read first.
        var state = new byte[300_000];
        Random.Shared.NextBytes(state);
        var backEnd = new BackEnd(new EchoDevice()) { StateToSave = state };
        (ScriptedFrontEnd frontEnd, _) = ScriptedFrontEnd.Connect(backEnd);
        using ScriptedFrontEnd owner = frontEnd;
        frontEnd.Negotiate();

        (FileDescriptor reader, FileDescriptor writer) = Pipe();
        Assert.Equal(0x100ul, frontEnd.Ask(42, [0u, 0u], writer.Number));
        writer.Dispose();
        byte[] saved = ReadAll(reader);
        reader.Dispose();
        Assert.Equal(0ul, frontEnd.Ask(43, []));
        Assert.Equal(state, saved);

        (reader, writer) = Pipe();
        Assert.Equal(0x100ul, frontEnd.Ask(42, [1u, 0u], reader.Number));
        reader.Dispose();
        fixed (byte* start = saved)
        {
            for (nint done = 0; done < saved.Length;)
                done += write(writer.Number, start + done, (nuint)(saved.Length - done));
        }
        writer.Dispose();
        Assert.Equal(0ul, frontEnd.Ask(43, []));
        Assert.Equal(state, backEnd.LoadedState);
        Assert.Empty(backEnd.Violations);
    }

    private static (FileDescriptor Reader, FileDescriptor Writer) Pipe()
    {
        int* fds = stackalloc int[2];
        Assert.Equal(0, pipe2(fds, O_CLOEXEC));
        return (new FileDescriptor(fds[0]), new FileDescriptor(fds[1]));
    }

    private static byte[] ReadAll(FileDescriptor reader)
    {
        using var all = new MemoryStream();
        byte* buffer = stackalloc byte[4096];
        nint count;
        while ((count = read(reader.Number, buffer, 4096)) > 0)
            all.Write(new ReadOnlySpan<byte>(buffer, (int)count));
        return all.ToArray();
    }
}
