using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Fuse;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Tests;

/// <summary>The FUSE server by requests made by hand, and its window by a front-end that keeps book of what is mapped.</summary>
public sealed class FuseTests : IDisposable
{
    private const ulong Mi = 1 << 20;

    private readonly string _directory = Directory.CreateTempSubdirectory("vmm-fuse-").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void Init_agrees_on_a_version_and_tells_the_alignment_of_mappings()
    {
        using var server = new FuseServer(_directory, 64 * Mi);
        // 7.38, FUSE_MAP_ALIGNMENT and a bit that the server does not know.
        byte[] reply = Do(server, 26, 0, [.. U32(7), .. U32(38), .. U32(0x20000), .. U32((1 << 26) | (1 << 2))], out int error);
        Assert.Equal(0, error);
        Assert.Equal(64, reply.Length);
        Assert.Equal((7u, 36u, 0x20000u, 1u << 26), (At32(reply, 0), At32(reply, 4), At32(reply, 8), At32(reply, 12)));
        Assert.Equal(12, BitConverter.ToUInt16(reply, 30));
        using var without = new FuseServer(_directory, 0);
        reply = Do(without, 26, 0, [.. U32(7), .. U32(38), .. U32(0), .. U32(1 << 26)], out _);
        Assert.Equal(0u, At32(reply, 12));
        Assert.Equal(0, BitConverter.ToUInt16(reply, 30));
    }

    [Fact]
    public void Files_are_made_written_read_renamed_and_removed()
    {
        using var server = new FuseServer(_directory, 0);
        // CREATE: flags O_RDWR, mode, umask, open_flags, name. entry_out is 128 bytes, then fh.
        byte[] created = Do(server, 35, 1, [.. U32(2), .. U32(0x81A4), .. U32(0x12), .. U32(0), .. Name("a")], out int error);
        Assert.Equal((0, 144), (error, created.Length));
        ulong node = At64(created, 0);
        ulong handle = At64(created, 128);
        Assert.Equal(0x81A4u & ~0x12u, At32(created, 40 + 60));

        byte[] written = Do(server, 16, node, [.. U64(handle), .. U64(3), .. U32(5), .. new byte[20], .. "hello"u8], out error);
        Assert.Equal((0, 5u), (error, At32(written, 0)));
        Assert.Equal("\0\0\0hello", File.ReadAllText(Path.Combine(_directory, "a")));
        Assert.Equal("llo"u8.ToArray(), Do(server, 15, node, [.. U64(handle), .. U64(5), .. U32(100), .. new byte[20]], out _));
        byte[] attributes = Do(server, 3, node, new byte[16], out _);
        Assert.Equal((104, 8ul), (attributes.Length, At64(attributes, 16 + 8)));

        // SETATTR: FATTR_SIZE to 4, in 88 bytes.
        var set = new byte[88];
        set[0] = 8;
        set[16] = 4;
        attributes = Do(server, 4, node, set, out error);
        Assert.Equal((0, 4ul), (error, At64(attributes, 16 + 8)));

        // MKDIR d, RENAME2 a to d/b, and the node is still the same.
        byte[] directory = Do(server, 9, 1, [.. U32(0x1ED), .. U32(0), .. Name("d")], out _);
        Do(server, 45, 1, [.. U64(At64(directory, 0)), .. U32(0), .. U32(0), .. Name("a"), .. Name("b")], out error);
        Assert.Equal(0, error);
        Assert.Equal(4, new FileInfo(Path.Combine(_directory, "d", "b")).Length);
        Assert.Equal(node, At64(Do(server, 1, At64(directory, 0), Name("b"), out _), 0));
        Do(server, 1, 1, Name("a"), out error);
        Assert.Equal(-ENOENT, error);

        // SYMLINK, READLINK; RMDIR of what is not empty; UNLINK.
        byte[] link = Do(server, 6, 1, [.. Name("l"), .. Name("d/b")], out _);
        Assert.Equal("d/b"u8.ToArray(), Do(server, 5, At64(link, 0), [], out _));
        Do(server, 11, 1, Name("d"), out error);
        Assert.Equal(-39, error);
        Do(server, 10, At64(directory, 0), Name("b"), out error);
        Assert.Equal(0, error);
        Do(server, 11, 1, Name("d"), out error);
        Assert.Equal(0, error);
        Do(server, 18, node, [.. U64(handle), .. new byte[16]], out error);
        Assert.Equal(0, error);
        Do(server, 15, node, [.. U64(handle), .. U64(0), .. U32(1), .. new byte[20]], out error);
        Assert.Equal(-EBADF, error);
    }

    [Theory]
    [InlineData("..")]
    [InlineData(".")]
    [InlineData("a/b")]
    [InlineData("../x")]
    [InlineData("")]
    public void No_name_leads_out_of_the_directory(string name)
    {
        using var server = new FuseServer(_directory, 0);
        Do(server, 1, 1, Name(name), out int error);
        Assert.Equal(-EINVAL, error);
        Do(server, 9, 1, [.. U32(0x1ED), .. U32(0), .. Name(name)], out error);
        Assert.Equal(-EINVAL, error);
        Do(server, 10, 1, Name(name), out error);
        Assert.Equal(-EINVAL, error);
    }

    [Fact]
    public void Requests_that_are_short_or_unknown_are_refused_and_forgetting_is_not_answered()
    {
        using var server = new FuseServer(_directory, 0);
        Assert.Empty(server.Serve(new byte[39], 4096, null));
        Do(server, 1, 1, "no zero at the end"u8.ToArray(), out int error);
        Assert.Equal(-EINVAL, error);
        Do(server, 16, 1, [1, 2, 3], out error);
        Assert.Equal(-EINVAL, error);
        Do(server, 9999, 1, [], out error);
        Assert.Equal(-ENOSYS, error);
        Do(server, 3, 77, new byte[16], out error);
        Assert.Equal(-ENOENT, error);
        Do(server, 48, 1, new byte[40], out error);
        Assert.Equal(-ENOSYS, error);
        File.WriteAllText(Path.Combine(_directory, "a"), "");
        ulong node = At64(Do(server, 1, 1, Name("a"), out _), 0);
        Assert.Empty(server.Serve(Request(2, node, U64(1)), 4096, null));
        Do(server, 3, node, new byte[16], out error);
        Assert.Equal(-ENOENT, error);
    }

    [Theory]
    [InlineData(28u)]
    [InlineData(44u)]
    public void Directories_are_listed_in_as_many_parts_as_there_is_room_for(uint opcode)
    {
        using var server = new FuseServer(_directory, 0);
        for (int i = 0; i < 100; i++)
            File.WriteAllText(Path.Combine(_directory, $"file{i:d3}"), "");
        ulong handle = At64(Do(server, 27, 1, new byte[8], out _), 0);
        var names = new HashSet<string>();
        ulong offset = 0;
        int head = opcode == 44 ? 128 : 0;
        while (true)
        {
            byte[] part = Do(server, opcode, 1, [.. U64(handle), .. U64(offset), .. U32(1000), .. new byte[20]], out int error);
            Assert.Equal(0, error);
            if (part.Length == 0)
                break;
            Assert.InRange(part.Length, 1, 1000);
            for (int at = 0; at < part.Length;)
            {
                offset = At64(part, at + head + 8);
                int length = (int)At32(part, at + head + 16);
                string name = System.Text.Encoding.ASCII.GetString(part, at + head + 24, length);
                Assert.True(names.Add(name));
                if (head > 0)
                    Assert.Equal(name.StartsWith('.'), At64(part, at) == 0);
                at += (head + 24 + length + 7) & ~7;
            }
        }
        Assert.Equal(102, names.Count);
    }

    [Fact]
    public void Mappings_replace_and_split_what_is_in_their_way_and_stop_at_the_end_of_the_file()
    {
        using var rig = new Rig(_directory);
        File.WriteAllBytes(Path.Combine(_directory, "a"), new byte[5 * Mi]);
        ulong a = At64(rig.Do(1, 1, Name("a"), out _), 0);
        Assert.Equal(0, rig.SetUp(a, 0, 4 * Mi, 0));
        Assert.Equal(["0+4M@0 rw"], rig.Mapped);
        // Exactly the same again.
        Assert.Equal(0, rig.SetUp(a, Mi, 4 * Mi, 0));
        Assert.Equal(["0+4M@1M rw"], rig.Mapped);
        // In the middle of it: two parts are left.
        Assert.Equal(0, rig.SetUp(a, 0, Mi, 2 * Mi));
        Assert.Equal(["0+2M@1M rw", "2M+1M@0 rw", "3M+1M@4M rw"], rig.Mapped);
        // Beyond the end only what there is.
        Assert.Equal(0, rig.SetUp(a, 4 * Mi, 4 * Mi, 8 * Mi));
        Assert.Equal(["0+2M@1M rw", "2M+1M@0 rw", "3M+1M@4M rw", "8M+1M@4M rw"], rig.Mapped);
        // A part in the middle goes.
        Assert.Equal(0, rig.Remove((Mi, 2 * Mi)));
        Assert.Equal(["0+1M@1M rw", "3M+1M@4M rw", "8M+1M@4M rw"], rig.Mapped);
        Assert.Equal(0, rig.Remove((0, Mi), (8 * Mi, 4 * Mi)));
        Assert.Equal(["3M+1M@4M rw"], rig.Mapped);
        // DESTROY.
        rig.Do(38, 1, [], out int error);
        Assert.Equal(0, error);
        Assert.Empty(rig.Mapped);
    }

    [Fact]
    public void A_file_that_grows_is_mapped_as_far_as_it_has_grown()
    {
        using var rig = new Rig(_directory);
        string path = Path.Combine(_directory, "a");
        File.WriteAllBytes(path, []);
        ulong a = At64(rig.Do(1, 1, Name("a"), out _), 0);
        Assert.Equal(0, rig.SetUp(a, 0, 2 * Mi, 0));
        Assert.Empty(rig.Mapped);
        // The guest writes; the end is in the middle of a page, and so is what is mapped.
        ulong handle = At64(rig.Do(14, a, [.. U32(2), .. U32(0)], out _), 0);
        rig.Do(16, a, [.. U64(handle), .. U64(0), .. U32(5), .. new byte[20], .. "hello"u8], out int error);
        Assert.Equal(0, error);
        Assert.Equal(["0+5@0 rw"], rig.Mapped);
        rig.Do(16, a, [.. U64(handle), .. U64(5), .. U32(5), .. new byte[20], .. "hello"u8], out _);
        Assert.Equal(["0+5@0 rw"], rig.Mapped);
        // The host writes, and the guest asks for attributes.
        File.WriteAllBytes(path, new byte[3 * Mi]);
        rig.Do(3, a, new byte[16], out _);
        Assert.Equal(["0+5@0 rw", "4096+2093056@4096 rw"], rig.Mapped);
        Assert.Equal(0, rig.Remove((0, 2 * Mi)));
        Assert.Empty(rig.Mapped);
    }

    [Fact]
    public void What_may_not_be_written_is_mapped_for_reading_and_refusals_reach_the_guest()
    {
        using var rig = new Rig(_directory);
        File.WriteAllBytes(Path.Combine(_directory, "a"), new byte[Mi]);
        ulong a = At64(rig.Do(1, 1, Name("a"), out _), 0);
        rig.Server.MapsReadOnlyFirst = true;
        Assert.Equal(0, rig.SetUp(a, 0, Mi, 0, flags: 2));
        Assert.Equal(["0+1M@0 ro"], rig.Mapped);
        Assert.Equal(0, rig.SetUp(a, 0, Mi, 0, flags: 1));
        Assert.Equal(["0+1M@0 rw"], rig.Mapped);
        Assert.Equal(-EINVAL, rig.SetUp(a, 0, Mi, 64 * Mi));
        Assert.Equal(-EINVAL, rig.SetUp(a, 0, Mi, 100));
        Assert.Equal(-EINVAL, rig.SetUp(a, 0, 0, 0));
        rig.RefuseWith = ENOSPC;
        Assert.Equal(-ENOSPC, rig.SetUp(a, 0, Mi, 4 * Mi));
        Assert.Equal(["0+1M@0 rw"], rig.Mapped);
    }

    private static byte[] Do(FuseServer server, uint opcode, ulong node, byte[] arguments, out int error) =>
        Taken(server.Serve(Request(opcode, node, arguments), 1 << 20, null), out error);

    private static byte[] Taken(byte[] reply, out int error)
    {
        Assert.Equal((uint)reply.Length, At32(reply, 0));
        Assert.Equal(0x1234567890ul, At64(reply, 8));
        error = (int)At32(reply, 4);
        return reply[16..];
    }

    private static byte[] Request(uint opcode, ulong node, byte[] arguments) =>
        [.. U32(40 + (uint)arguments.Length), .. U32(opcode), .. U64(0x1234567890), .. U64(node), .. new byte[16], .. arguments];

    private static byte[] Name(string name) => [.. System.Text.Encoding.UTF8.GetBytes(name), 0];

    private static byte[] U32(uint value) => BitConverter.GetBytes(value);

    private static byte[] U64(ulong value) => BitConverter.GetBytes(value);

    private static uint At32(byte[] data, int at) => BitConverter.ToUInt32(data, at);

    private static ulong At64(byte[] data, int at) => BitConverter.ToUInt64(data, at);

    /// <summary>A server whose channel ends in a window of 64 MiB that refuses what vhost-user.rst says it must.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly ScriptedFrontEnd _frontEnd;
        private readonly BackEndSession _session;
        private readonly FsDevice _device;
        private readonly List<ShmemMapping> _mapped = [];
        private readonly Thread _window;

        internal Rig(string directory)
        {
            _device = new FsDevice(directory, "tag", 64 * Mi);
            (_frontEnd, _session) = ScriptedFrontEnd.Connect(new BackEnd(_device));
            _frontEnd.Negotiate();
            _window = new Thread(Serve);
            _window.Start();
        }

        internal FuseServer Server => _device.Server;

        internal ulong RefuseWith { get; set; }

        internal List<string> Mapped
        {
            get
            {
                lock (_mapped)
                    return [.. _mapped.OrderBy(m => m.ShmOffset).Select(m => $"{Short(m.ShmOffset)}+{Short(m.Size)}@{Short(m.FdOffset)} {(m.Flags == 1 ? "rw" : "ro")}")];
            }
        }

        internal byte[] Do(uint opcode, ulong node, byte[] arguments, out int error) =>
            Taken(Server.Serve(Request(opcode, node, arguments), 1 << 20, _session.Channel), out error);

        internal int SetUp(ulong node, ulong fileOffset, ulong length, ulong offset, ulong flags = 3)
        {
            Do(48, node, [.. U64(ulong.MaxValue), .. U64(fileOffset), .. U64(length), .. U64(flags), .. U64(offset)], out int error);
            return error;
        }

        internal int Remove(params (ulong Offset, ulong Length)[] ranges)
        {
            byte[] arguments = U32((uint)ranges.Length);
            foreach ((ulong offset, ulong length) in ranges)
                arguments = [.. arguments, .. U64(offset), .. U64(length)];
            Do(49, 1, arguments, out int error);
            return error;
        }

        public void Dispose()
        {
            _frontEnd.Channel!.Shutdown();
            _window.Join();
            _frontEnd.Dispose();
            Assert.True(_session.WaitForEnd(ScriptedFrontEnd.Deadline));
            _device.Dispose();
        }

        private static string Short(ulong value) => value % Mi == 0 && value > 0 ? $"{value / Mi}M" : $"{value}";

        private void Serve()
        {
            UnixStream channel = _frontEnd.Channel!;
            while (true)
            {
                var descriptors = new List<FileDescriptor>();
                var header = new byte[52];
                if (channel.ReceiveExactly(header, descriptors, -1) != 0)
                    return;
                uint request = At32(header, 0);
                var mapping = ShmemMapping.Read(header.AsSpan(12));
                ulong answer = Decide(request, mapping, descriptors);
                descriptors.ForEach(descriptor => descriptor.Dispose());
                if (channel.Send([.. U32(request), .. U32(5), .. U32(8), .. U64(answer)], [], 5000) != 0)
                    return;
            }
        }

        private unsafe ulong Decide(uint request, ShmemMapping mapping, List<FileDescriptor> descriptors)
        {
            lock (_mapped)
            {
                if (request == 10)
                    return descriptors.Count == 0 && _mapped.RemoveAll(m => m.ShmOffset == mapping.ShmOffset && m.Size == mapping.Size) == 1 ? 0ul : EINVAL;
                ulong end = RoundUp(mapping.ShmOffset + mapping.Size);
                if (request != 9 || descriptors.Count != 1 || mapping.Size == 0 || end > 64 * Mi || mapping.ShmOffset % 4096 != 0 || mapping.FdOffset % 4096 != 0)
                    return EINVAL;
                if (RefuseWith != 0)
                    return RefuseWith;
                statx status;
                if (statx(descriptors[0].Number, "", AT_EMPTY_PATH, STATX_SIZE, &status) != 0 || status.stx_size < mapping.FdOffset + mapping.Size)
                    return EINVAL;
                if (_mapped.Exists(m => m.ShmOffset < end && mapping.ShmOffset < RoundUp(m.ShmOffset + m.Size)))
                    return EEXIST;
                _mapped.Add(mapping);
                return 0;
            }
        }

        private static ulong RoundUp(ulong value) => (value + 4095) & ~4095ul;
    }
}
