using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Conformance;

/// <summary>Does a step on the back-end's channel and compares the answer.</summary>
internal static unsafe class StepRunner
{
    private const int Patience = 500;
    private const int SendPatience = 3000;
    private const int O_PATH = 0x200000;

    /// <summary>Null where all went as it must; else what went wrong.</summary>
    internal static string? Run(ChannelStep step, BackEndSession session)
    {
        BackEndChannel channel = session.Channel!;
        using var file = new StepFile(step);
        int[] descriptors = new int[step.Descriptors];
        Array.Fill(descriptors, file.Number);
        uint flags = step.Flags ?? MessageFlags.Version | (session.HasProtocolFeature(ProtocolFeatures.REPLY_ACK) ? MessageFlags.NeedReply : 0);
        string? wrong = step switch
        {
            { Cut: { } cut } => SendPart(step, channel, flags, cut, descriptors),
            { ReadsAnswers: false } => SendAndNeverRead(step, channel, flags),
            { Must: MustAnswer.Nothing } => SendMany(step, channel, flags, descriptors),
            _ => Ask(step, channel, flags, descriptors),
        };
        if (wrong != null)
            return wrong;
        if (step.FileKeepsSize && file.Size != step.FileSize)
            return $"{Describe(step, 0)}: the file had {step.FileSize} bytes and has {file.Size}";
        return step.TruncateAfter is { } length && ftruncate(file.Number, length) != 0 ? $"cannot cut the file: {strerror(errno)}" : null;
    }

    private static string? Ask(ChannelStep step, BackEndChannel channel, uint flags, int[] descriptors)
    {
        for (int i = 0; i < step.Repeat; i++)
        {
            ChannelAnswer answer = channel.AskRaw((uint)step.Request, flags, Payload(step, i), wait: true, descriptors);
            bool ended = answer.Result == ChannelResult.Closed;
            bool good = step.Must switch
            {
                MustAnswer.Success => answer.IsSuccess,
                MustAnswer.Refusal => answer.IsRefusal,
                MustAnswer.RefusalOrEnd => answer.IsRefusal || ended,
                _ => answer.Result == ChannelResult.Answered || ended,
            };
            if (!good)
                return $"{Describe(step, i)}: {step.Must} was due, and there was {answer}";
            if (ended)
                return null;
        }
        return null;
    }

    private static string? SendPart(ChannelStep step, BackEndChannel channel, uint flags, int cut, int[] descriptors)
    {
        byte[] message = BackEndConnection.Encode((uint)step.Request, flags, Payload(step, 0));
        return channel.Connection.Send(message.AsSpan(0, cut), descriptors) != 0 ? $"{Describe(step, 0)}: the channel had ended" : NoInput(step, channel);
    }

    private static string? SendMany(ChannelStep step, BackEndChannel channel, uint flags, int[] descriptors)
    {
        byte[] message = BackEndConnection.Encode((uint)step.Request, flags, Payload(step, 0));
        for (int i = 0; i < step.Repeat; i++)
        {
            if (channel.Connection.Send(message, descriptors) != 0)
                return $"{Describe(step, i)}: the channel had ended";
        }
        return NoInput(step, channel);
    }

    /// <summary>The front-end may stop reading, or end the channel: the socket's buffer is what bounds it.</summary>
    private static string? SendAndNeverRead(ChannelStep step, BackEndChannel channel, uint flags)
    {
        byte[] message = BackEndConnection.Encode((uint)step.Request, flags, Payload(step, 0));
        int before = channel.Connection.SendTimeout;
        channel.Connection.SendTimeout = SendPatience;
        for (int i = 0; i < step.Repeat; i++)
        {
            if (channel.Connection.Send(message) != 0)
                break;
        }
        channel.Connection.SendTimeout = before;
        return null;
    }

    private static string? NoInput(ChannelStep step, BackEndChannel channel)
    {
        Thread.Sleep(Patience);
        return channel.Connection.HasInput ? $"{Describe(step, 0)}: an answer came, or the end of the channel" : null;
    }

    private static byte[] Payload(ChannelStep step, int repetition)
    {
        byte[] payload = step.Payload ?? (step.Mapping with { ShmOffset = step.Mapping.ShmOffset + ((ulong)repetition * step.RepeatStride) }).ToBytes();
        if (step.PayloadLength is { } length)
            Array.Resize(ref payload, length);
        return payload;
    }

    private static string Describe(ChannelStep step, int repetition) =>
        step.Payload != null ? $"request {step.Request}" : $"{step.Request} of region {step.Mapping.ShmId}, offset {step.Mapping.ShmOffset + ((ulong)repetition * step.RepeatStride):x}, "
            + $"length {step.Mapping.Size:x}, file offset {step.Mapping.FdOffset:x}, flags {step.Mapping.Flags:x}, {step.Descriptors} descriptors of kind {step.Kind}";

    /// <summary>The descriptor that a step sends.</summary>
    private sealed class StepFile : IDisposable
    {
        private readonly List<IDisposable> _owned = [];

        internal StepFile(ChannelStep step)
        {
            Number = step.Kind switch
            {
                FileKind.Pipe => Pipe(),
                FileKind.EventFd => Own(EventFd.Create()),
                FileKind.Socket => Socket(),
                FileKind.Directory => Own(open("/", O_RDONLY | O_CLOEXEC, 0)),
                FileKind.ReadOnlyMemory => Own(open(Memory(step.FileSize), O_RDONLY | O_CLOEXEC, 0)),
                FileKind.Path => Own(open(Memory(step.FileSize), O_PATH | O_CLOEXEC, 0)),
                _ => MemoryNumber(step.FileSize),
            };
        }

        internal int Number { get; }

        internal long Size => lseek(Number, 0, SEEK_END);

        public void Dispose()
        {
            foreach (IDisposable owned in _owned)
                owned.Dispose();
        }

        private int MemoryNumber(long size)
        {
            int number = Own(memfd_create("window", MFD_CLOEXEC));
            return ftruncate(number, size) == 0 ? number : throw VmmException.Host($"Cannot make a file of {size} bytes: {strerror(errno)}.");
        }

        private string Memory(long size) => $"/proc/self/fd/{MemoryNumber(size)}";

        private int Pipe()
        {
            int* fds = stackalloc int[2];
            if (pipe2(fds, O_CLOEXEC) != 0)
                throw VmmException.Host($"Cannot make a pipe: {strerror(errno)}.");
            Own(fds[1]);
            return Own(fds[0]);
        }

        private int Socket()
        {
            (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
            _owned.Add(ours);
            _owned.Add(theirs);
            return ours.Number;
        }

        private int Own(int number) => number >= 0 ? Own(new FileDescriptor(number)) : throw VmmException.Host($"Cannot open a file for a scenario: {strerror(errno)}.");

        private int Own(FileDescriptor file)
        {
            _owned.Add(file);
            return file.Number;
        }
    }
}
