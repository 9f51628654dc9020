using System.Globalization;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Tool;

/// <summary>Commands, one to a line; each is answered by a line that starts with ok or error.</summary>
internal sealed unsafe class ToolCommands : IDisposable
{
    private const string Help = """
        memfd NAME SIZE                                makes memory that can be mapped
        map REGION FILE|NAME FILE_OFFSET OFFSET LENGTH [ro] [noreply]
        unmap REGION OFFSET LENGTH [noreply]
        map-pages REGION FILE|NAME OFFSET COUNT [reversed]   a mapping for each page of the file's start; tells how many the front-end took
        unmap-pages REGION OFFSET COUNT                and takes them out again; tells how many
        number-pages FILE|NAME COUNT                   writes at the start of each page which one it is, in 64 bits
        truncate FILE|NAME SIZE
        fill FILE|NAME OFFSET LENGTH BYTE              writes a byte again and again
        peek FILE|NAME OFFSET LENGTH                   tells bytes
        config OFFSET HEX                              changes the configuration space, and tells nobody
        config-change                                  tells the front-end that it has changed
        resize SECTORS                                 does both for blk
        channel REQUEST FLAGS HEX [FILE|NAME...]       any message on the back-end's channel
        signal QUEUE                                   interrupts the guest
        fault REQUEST:KIND[:VALUE][@FIRST[xTIMES]]     plans a fault
        clear-faults
        delay MILLISECONDS                             of every request of blk
        requests | extents                             of fs: how many requests of each kind there were; how many ranges are mapped
        disconnect                                     ends the connection as if killed
        accept on|off                                  whether another one is taken
        wait REQUEST [COUNT [SECONDS]]                 for a request to have come so many times in all
        sleep SECONDS
        status | violations | transcript
        quit
        """;

    private const ulong PageSize = 4096;

    private readonly BackEnd _backEnd;
    private readonly BackEndServer _server;
    private readonly Dictionary<string, FileDescriptor> _memory = [];

    internal ToolCommands(BackEnd backEnd, BackEndServer server)
    {
        _backEnd = backEnd;
        _server = server;
    }

    /// <summary>Obeys until the input ends, or somebody says quit: then it answers true.</summary>
    internal bool Obey(TextReader input)
    {
        while (input.ReadLine() is { } line)
        {
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words is [])
                continue;
            if (words is ["quit"])
                return true;
            string answer;
            try
            {
                answer = $"ok {Do(words)}";
            }
            catch (Exception e) when (e is VmmException or IOException or FormatException or UnauthorizedAccessException)
            {
                answer = $"error {e.Message}";
            }
            Console.Out.WriteLine(answer.TrimEnd());
            Console.Out.Flush();
        }
        return false;
    }

    public void Dispose()
    {
        foreach (FileDescriptor descriptor in _memory.Values)
            descriptor.Dispose();
    }

    private BackEndChannel Channel => _backEnd.Session?.Channel ?? throw VmmException.Configuration("There is no back-end channel: no front-end has given one.");

    private string Do(string[] words)
    {
        switch (words)
        {
            case ["help"]:
                return "\n" + Help;
            case ["memfd", var name, var size]:
                _memory.Remove(name, out FileDescriptor? old);
                old?.Dispose();
                var memory = new FileDescriptor(memfd_create(name, MFD_CLOEXEC));
                _memory.Add(name, memory);
                return Checked(ftruncate(memory.Number, (long)ToolOptions.Size(size)), words);
            case ["map", var region, var file, var fileOffset, var offset, var length, .. var options]:
                using (FileDescriptor from = Open(file, readOnly: options.Contains("ro")))
                {
                    ulong flags = options.Contains("ro") ? 0 : ShmemMapping.ReadWrite;
                    var mapping = new ShmemMapping((byte)ToolOptions.Size(region), ToolOptions.Size(fileOffset), ToolOptions.Size(offset), ToolOptions.Size(length), flags);
                    return Told(Channel.Map(mapping, from.Number, !options.Contains("noreply")));
                }
            case ["unmap", var region, var offset, var length, .. var options]:
                return Told(Channel.Unmap(new ShmemMapping((byte)ToolOptions.Size(region), 0, ToolOptions.Size(offset), ToolOptions.Size(length), 0), !options.Contains("noreply")));
            case ["map-pages", var region, var file, var offset, var count, .. var options]:
                return MapPages((byte)ToolOptions.Size(region), file, ToolOptions.Size(offset), ToolOptions.Size(count), options.Contains("reversed"));
            case ["unmap-pages", var region, var offset, var count]:
                return UnmapPages((byte)ToolOptions.Size(region), ToolOptions.Size(offset), ToolOptions.Size(count));
            case ["number-pages", var file, var count]:
                return NumberPages(file, (long)ToolOptions.Size(count), words);
            case ["truncate", var file, var size]:
                using (FileDescriptor target = Open(file, readOnly: false))
                    return Checked(ftruncate(target.Number, (long)ToolOptions.Size(size)), words);
            case ["fill", var file, var offset, var length, var value]:
                return Fill(file, (long)ToolOptions.Size(offset), (int)ToolOptions.Size(length), (byte)ToolOptions.Size(value), words);
            case ["peek", var file, var offset, var length]:
                return Peek(file, (long)ToolOptions.Size(offset), (int)ToolOptions.Size(length), words);
            case ["config", var offset, var hex]:
                return _backEnd.TryWriteConfig((int)ToolOptions.Size(offset), Convert.FromHexString(hex)) ? "" : throw VmmException.Configuration("That is beyond the configuration space.");
            case ["config-change"]:
                return Told(Channel.ConfigChange());
            case ["resize", var sectors] when _backEnd.Device is BlkDevice disk:
                return Told(disk.Resize(_backEnd, (long)ToolOptions.Size(sectors)));
            case ["delay", var milliseconds] when _backEnd.Device is BlkDevice disk:
                disk.DelayMilliseconds = (int)ToolOptions.Size(milliseconds);
                return "";
            case ["requests"] when _backEnd.Device is FsDevice files:
                return string.Join(' ', files.Server.Counts.OrderBy(count => count.Key).Select(count => $"{count.Key}={count.Value}"));
            case ["extents"] when _backEnd.Device is FsDevice files:
                return $"extents={files.Server.MappedExtents}";
            case ["channel", var request, var flags, var hex, .. var files]:
                return SendAny((uint)ToolOptions.Size(request), (uint)ToolOptions.Size(flags), hex == "-" ? [] : Convert.FromHexString(hex), files);
            case ["signal", var queue]:
                int index = (int)ToolOptions.Size(queue);
                if (_backEnd.Session is not { } session || index >= session.Vrings.Count)
                    throw VmmException.Configuration("There is no such queue.");
                session.Vrings[index].Signal();
                return "";
            case ["fault", var fault]:
                ToolOptions.PlanFault(_backEnd, fault);
                return "";
            case ["clear-faults"]:
                _backEnd.ClearFaults();
                return "";
            case ["disconnect"]:
                _backEnd.Session?.Disconnect();
                return "";
            case ["accept", "on" or "off"]:
                _server.Accepts = words[1] == "on";
                return "";
            case ["wait", var name, .. var rest]:
                return Wait(name, rest);
            case ["sleep", var seconds]:
                Thread.Sleep(TimeSpan.FromSeconds(double.Parse(seconds, CultureInfo.InvariantCulture)));
                return "";
            case ["status"]:
                return Status();
            case ["violations"]:
                return _backEnd.Violations.Count == 0 ? "none" : $"{_backEnd.Violations.Count}\n{string.Join('\n', _backEnd.Violations)}";
            case ["transcript"]:
                return $"\n{_backEnd.Transcript}";
            default:
                throw VmmException.Configuration($"'{string.Join(' ', words)}' is not a command for this device; 'help' lists them.");
        }
    }

    private static string Told(ChannelAnswer answer) => answer.Result switch
    {
        ChannelResult.Answered => answer.Value == 0 ? "answered 0" : $"answered {answer.Value} ({strerror((int)Math.Min(answer.Value, 4095))})",
        var result => result.ToString(),
    };

    private static string Checked(nint result, string[] words) =>
        result >= 0 ? "" : throw VmmException.Host($"{string.Join(' ', words)}: {strerror(errno)}");

    private FileDescriptor Open(string file, bool readOnly)
    {
        int fd = _memory.TryGetValue(file, out FileDescriptor? memory)
            ? fcntl(memory.Number, F_DUPFD_CLOEXEC, 0)
            : open(file, (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC, 0);
        return fd >= 0 ? new FileDescriptor(fd) : throw VmmException.Configuration($"Cannot open {file}: {strerror(errno)}.");
    }

    // In the file's own order neighbours would become one mapping of the front-end's process; reversed, none does.
    private string MapPages(byte region, string file, ulong offset, ulong count, bool reversed)
    {
        using FileDescriptor from = Open(file, readOnly: false);
        ulong mapped = 0;
        for (ulong i = 0; i < count; i++)
        {
            ulong page = reversed ? count - 1 - i : i;
            var mapping = new ShmemMapping(region, page * PageSize, offset + (i * PageSize), PageSize, ShmemMapping.ReadWrite);
            if (!Channel.Map(mapping, from.Number).IsSuccess)
                break;
            mapped++;
        }
        return mapped.ToString(CultureInfo.InvariantCulture);
    }

    private string UnmapPages(byte region, ulong offset, ulong count)
    {
        ulong unmapped = 0;
        for (ulong i = 0; i < count; i++)
        {
            if (Channel.Unmap(new ShmemMapping(region, 0, offset + (i * PageSize), PageSize, 0)).IsSuccess)
                unmapped++;
        }
        return unmapped.ToString(CultureInfo.InvariantCulture);
    }

    private string NumberPages(string file, long count, string[] words)
    {
        using FileDescriptor target = Open(file, readOnly: false);
        for (long page = 0; page < count; page++)
        {
            if (pwrite(target.Number, &page, sizeof(long), page * (long)PageSize) != sizeof(long))
                throw VmmException.Host($"{string.Join(' ', words)}: {strerror(errno)}");
        }
        return "";
    }

    private string Fill(string file, long offset, int length, byte value, string[] words)
    {
        using FileDescriptor target = Open(file, readOnly: false);
        var data = new byte[length];
        data.AsSpan().Fill(value);
        fixed (byte* start = data)
            return Checked(pwrite(target.Number, start, (nuint)length, offset), words);
    }

    private string Peek(string file, long offset, int length, string[] words)
    {
        using FileDescriptor target = Open(file, readOnly: true);
        var data = new byte[length];
        nint count;
        fixed (byte* start = data)
            count = pread(target.Number, start, (nuint)length, offset);
        return Checked(count, words) + Convert.ToHexStringLower(data.AsSpan(0, (int)count));
    }

    private string SendAny(uint request, uint flags, byte[] payload, string[] files)
    {
        FileDescriptor[] descriptors = [.. files.Select(file => Open(file, readOnly: false))];
        try
        {
            return Told(Channel.AskRaw(request, flags, payload, wait: (flags & MessageFlags.NeedReply) != 0, [.. descriptors.Select(descriptor => descriptor.Number)]));
        }
        finally
        {
            foreach (FileDescriptor descriptor in descriptors)
                descriptor.Dispose();
        }
    }

    private string Wait(string name, string[] rest)
    {
        if (!Enum.TryParse(name, out FrontEndRequest request))
            throw VmmException.Configuration($"There is no request {name}.");
        int count = rest.Length > 0 ? (int)ToolOptions.Size(rest[0]) : 1;
        int seconds = rest.Length > 1 ? (int)ToolOptions.Size(rest[1]) : 60;
        return _backEnd.Transcript.WaitFor(request, count, seconds * 1000) ? "" : throw VmmException.Host($"{name} has come {_backEnd.Transcript.Count(request)} times in {seconds} s.");
    }

    private string Status()
    {
        if (_backEnd.Session is not { } session)
            return "no connection yet";
        string queues = string.Join(' ', session.Vrings.Select(vring =>
            $"queue{vring.Index}={(vring.IsStarted ? vring.IsEnabled ? "running" : "disabled" : "stopped")},served={vring.Served},base={vring.Base}"));
        return $"connections={_backEnd.Sessions.Count} {(session.HasEnded ? "ended" : "open")} features={session.AckedFeatures:x} protocol={(ulong)session.AckedProtocolFeatures:x} "
            + $"regions={session.Memory.Regions.Count} channel={(session.Channel == null ? "no" : "yes")} resubmitted={_backEnd.Resubmitted} violations={_backEnd.Violations.Count} {queues}";
    }
}
