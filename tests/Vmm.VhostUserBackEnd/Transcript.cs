using System.Diagnostics;
using System.Globalization;
using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd;

/// <summary>Which way a message went, and where.</summary>
public enum TranscriptKind
{
    /// <summary>The front-end asked.</summary>
    Request,

    /// <summary>The back-end answered it.</summary>
    Reply,

    /// <summary>The back-end asked, on its own channel.</summary>
    BackEndRequest,

    /// <summary>The front-end answered it.</summary>
    BackEndReply,

    /// <summary>A connection began or ended, or a fault was put in.</summary>
    Note,
}

/// <summary>One line of a transcript.</summary>
/// <param name="Kind">Which way it went.</param>
/// <param name="Name">The message, as vhost-user.rst names it without its prefix; or a note.</param>
/// <param name="Flags">Of the header.</param>
/// <param name="Payload">Without the header.</param>
/// <param name="Descriptors">What each descriptor is, as /proc/self/fd says: "/memfd:ram (deleted)", "anon_inode:[eventfd]", "socket:[123]".</param>
/// <param name="Milliseconds">Since the transcript was made.</param>
public sealed record TranscriptEntry(TranscriptKind Kind, string Name, uint Flags, byte[] Payload, IReadOnlyList<string> Descriptors, long Milliseconds)
{
    public bool NeedsReply => (Flags & MessageFlags.NeedReply) != 0;

    /// <inheritdoc/>
    public override string ToString()
    {
        string arrow = Kind switch
        {
            TranscriptKind.Request => "->",
            TranscriptKind.Reply => "<-",
            TranscriptKind.BackEndRequest => "<=",
            TranscriptKind.BackEndReply => "=>",
            _ => "--",
        };
        string payload = Payload.Length <= 64 ? Convert.ToHexStringLower(Payload) : $"{Convert.ToHexStringLower(Payload.AsSpan(0, 64))}... ({Payload.Length} bytes)";
        return string.Create(CultureInfo.InvariantCulture, $"{Milliseconds,7} {arrow} {Name}{(NeedsReply ? " A" : "")} {payload}{string.Concat(Descriptors.Select(fd => $" fd={fd}"))}");
    }
}

/// <summary>All messages of all connections, in the order in which the back-end saw or sent them. Any thread may use it.</summary>
public sealed class Transcript
{
    private readonly List<TranscriptEntry> _entries = [];
    private readonly Stopwatch _clock = Stopwatch.StartNew();

    /// <summary>Called with each entry as it is made, on the thread that makes it.</summary>
    public Action<TranscriptEntry>? Trace { get; set; }

    /// <summary>A copy of what there is.</summary>
    public IReadOnlyList<TranscriptEntry> Entries
    {
        get
        {
            lock (_entries)
                return [.. _entries];
        }
    }

    /// <summary>How many entries there are.</summary>
    public int Length
    {
        get
        {
            lock (_entries)
                return _entries.Count;
        }
    }

    /// <summary>The names of the front-end's requests, in order.</summary>
    public IReadOnlyList<string> Names => [.. Entries.Where(entry => entry.Kind == TranscriptKind.Request).Select(entry => entry.Name)];

    /// <summary>How many requests of a name have come.</summary>
    public int Count(FrontEndRequest request) => Requests(request).Count;

    /// <summary>The requests of a name, in order.</summary>
    public IReadOnlyList<TranscriptEntry> Requests(FrontEndRequest request)
    {
        string name = request.ToString();
        return [.. Entries.Where(entry => entry.Kind == TranscriptKind.Request && entry.Name == name)];
    }

    /// <summary>Waits until a request has come so many times in all.</summary>
    /// <returns>False where it has not within the time.</returns>
    public bool WaitFor(FrontEndRequest request, int count = 1, int timeoutMilliseconds = 10_000) =>
        WaitFor(entries => CountOf(entries, request) >= count, timeoutMilliseconds);

    /// <summary>Waits until the entries are as wanted. The condition is called under a lock.</summary>
    public bool WaitFor(Func<IReadOnlyList<TranscriptEntry>, bool> condition, int timeoutMilliseconds = 10_000)
    {
        var clock = Stopwatch.StartNew();
        lock (_entries)
        {
            while (!condition(_entries))
            {
                long left = timeoutMilliseconds - clock.ElapsedMilliseconds;
                if (left <= 0 || !Monitor.Wait(_entries, (int)left))
                    return condition(_entries);
            }
            return true;
        }
    }

    public void Clear()
    {
        lock (_entries)
            _entries.Clear();
    }

    /// <inheritdoc/>
    public override string ToString() => string.Join('\n', Entries);

    internal void Add(TranscriptKind kind, string name, uint flags = 0, byte[]? payload = null, IReadOnlyList<string>? descriptors = null)
    {
        var entry = new TranscriptEntry(kind, name, flags, payload ?? [], descriptors ?? [], _clock.ElapsedMilliseconds);
        lock (_entries)
        {
            _entries.Add(entry);
            Monitor.PulseAll(_entries);
        }
        Trace?.Invoke(entry);
    }

    internal static string[] Describe(IReadOnlyList<FileDescriptor> descriptors)
    {
        var words = new string[descriptors.Count];
        for (int i = 0; i < words.Length; i++)
            words[i] = new FileInfo(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{descriptors[i].Number}")).LinkTarget ?? "?";
        return words;
    }

    private static int CountOf(IReadOnlyList<TranscriptEntry> entries, FrontEndRequest request)
    {
        string name = request.ToString();
        return entries.Count(entry => entry.Kind == TranscriptKind.Request && entry.Name == name);
    }
}
