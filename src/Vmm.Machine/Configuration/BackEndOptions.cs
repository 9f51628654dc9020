using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>
/// What every option of a device with an external back-end has: <c>socket=PATH,server=on|off,reconnect=off|MS,exec="COMMAND",…</c>.
/// </summary>
/// <param name="Socket">The socket's path; null where the back-end is started by this program and handed a socket.</param>
/// <param name="Exec">The command that starts the back-end; null where somebody else does.</param>
/// <param name="Server">This program listens and the back-end connects.</param>
/// <param name="Reconnect">Milliseconds between two tries to find a back-end in place of a lost one; null for no tries.</param>
/// <param name="SharedMemoryIsBit21">The back-end means SHMEM by protocol feature bit 21.</param>
/// <param name="SharedMemoryMappings">The most mappings that it may have in shared memory.</param>
public sealed record BackEndOptions(string? Socket, string? Exec, bool Server, int? Reconnect, bool SharedMemoryIsBit21, int? SharedMemoryMappings)
{
    /// <summary>Between two tries, in milliseconds, where nothing is said.</summary>
    public const int DefaultReconnect = 100;

    /// <summary>Whether a program was just started at the socket, which is listened at already: it gets the time that a start takes. Not a key: for who starts one.</summary>
    public bool IsBeingStarted { get; init; }

    private const string Bit21 = "shmem-bit-21";
    private const int SlowestReconnect = 60_000;
    private const int MostMappings = 1 << 20;

    internal static readonly string[] Keys = ["socket", "exec", "server", "reconnect", "quirk", "shmem_mappings"];

    internal static readonly string[] Words = ["socket=", "exec=", "server=on", "reconnect=off", "reconnect=", "quirk=shmem-bit-21", "shmem_mappings="];

    internal const string Syntax = "[,socket=PATH][,exec=\"COMMAND\"][,server=on|off][,reconnect=off|MILLISECONDS][,quirk=shmem-bit-21][,shmem_mappings=N]";

    /// <summary>Reads and checks them.</summary>
    /// <exception cref="VmmException">A value is wrong, or there is no socket.</exception>
    internal static BackEndOptions From(OptionFields fields)
    {
        string? socket = fields.Path("socket");
        string? exec = fields.Text("exec", null);
        bool server = fields.Flag("server", false);
        if (socket is null && exec is null)
            throw VmmException.Configuration($"{fields.Origin}: there is no back-end; write socket=PATH of one that runs, or exec=\"COMMAND\" to start one.");
        if (socket is not null && System.Text.Encoding.UTF8.GetByteCount(socket) > 107)
            throw OptionFields.Error(fields.Find("socket")!, $"{OptionGrammar.Show($"socket={socket}")} is longer than the 107 bytes that a socket's path can have.");
        if (exec is not null && (socket is not null || server))
            throw OptionFields.Error(fields.Find("exec")!, "exec makes its own socket, which the command finds as {fd} or {socket}; leave socket and server out.");
        if (exec is not null && !exec.Contains("{fd}", StringComparison.Ordinal) && !exec.Contains("{socket}", StringComparison.Ordinal))
            throw OptionFields.Error(fields.Find("exec")!, "the command does not say where its socket goes; write {fd} for a descriptor of it, or {socket} for its path.");
        bool quirk = false;
        if (fields.Text("quirk", null) is { } named)
        {
            quirk = named == Bit21;
            if (!quirk)
                throw OptionFields.Error(fields.Find("quirk")!, $"{OptionGrammar.Show($"quirk={named}")} is not known; there is {Bit21}.");
        }
        return new BackEndOptions(socket, exec, server, ReconnectOf(fields), quirk, fields.Number("shmem_mappings", 1, MostMappings));
    }

    /// <summary>Refuses keys of the device that mean nothing with an external back-end.</summary>
    /// <exception cref="VmmException">One is there.</exception>
    internal static void Refuse(OptionFields fields, ReadOnlySpan<string> keys)
    {
        foreach (string key in keys)
        {
            if (fields.Find(key) is { } field)
                throw OptionFields.Error(field, $"{key} means nothing with vhost_user=on; that is the back-end's to decide.");
        }
    }

    /// <summary>Refuses the keys of external back-ends where there is none.</summary>
    /// <exception cref="VmmException">One is there.</exception>
    internal static void RefuseWithout(OptionFields fields)
    {
        foreach (string key in Keys)
        {
            if (fields.Find(key) is { } field)
                throw OptionFields.Error(field, $"{key} means nothing without vhost_user=on; add that, or leave it out.");
        }
    }

    internal void WriteTo(IConfigWriter writer)
    {
        writer.Text("socket", Socket);
        writer.Text("exec", Exec);
        if (Exec is null)
            writer.Flag("server", Server);
        writer.Text("reconnect", Reconnect?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "off");
        writer.Text("quirk", SharedMemoryIsBit21 ? Bit21 : null);
        writer.Number("shmem_mappings", SharedMemoryMappings);
    }

    private static int? ReconnectOf(OptionFields fields)
    {
        if (fields.Text("reconnect", null) is not { } text)
            return DefaultReconnect;
        return text == "off" ? null : fields.Number("reconnect", 1, SlowestReconnect);
    }
}
