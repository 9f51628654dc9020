using System.Globalization;
using Vmm.Core;
using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd.Tool;

/// <summary>The tool's options: --name=value, some of them more than once.</summary>
internal sealed class ToolOptions
{
    internal const string Help = """
        vhost-user-backend --socket=PATH [--client] --device=DEVICE [OPTION...]
            Serves front-ends one after the other, and obeys commands on standard input (see 'help').
            --client                    connects to a front-end that listens
            --trace                     writes every message to standard error
            --device=blk  --path=IMAGE [--read-only] [--queues=N] [--id=NAME] [--delay=MILLISECONDS]
            --device=fs   --dir=DIRECTORY --tag=TAG [--window=SIZE] [--queues=N] [--read-only-first] [--cache=SECONDS]
            --device=rng
            --device=echo  [--queues=N]
            --device=shmem --region=ID:SIZE... [--queues=N]
            --features=HEX              the features in place of the device's
            --protocol-features=HEX|NAME,...   those that are offered, in place of all that are known
            --without=NAME,...          protocol features that are not offered
            --state=FILE                the device state that is saved
            --fault=REQUEST:KIND[:VALUE][@FIRST[xTIMES]]   what goes wrong, e.g. GET_FEATURES:Silence or SET_VRING_KICK:Nack:5@2
        vhost-user-backend conformance --socket=PATH [--client] [--scenario=NAME...] [--rule=mapping|migration|fault] [--list]
            [--timeout=SECONDS] [--silence=SECONDS] [--comes-back] [--on-start=COMMAND] [--device=...] [--trace] [--verbose]
            Runs scenarios against whichever front-end connects; --on-start is run by sh for each, with VHOST_USER_SOCKET set.
        Sizes may end in K, M or G.

        """;

    private readonly List<(string Name, string? Value)> _options = [];
    private readonly HashSet<string> _used = [];

    internal ToolOptions(ReadOnlySpan<string> arguments)
    {
        foreach (string argument in arguments)
        {
            if (!argument.StartsWith("--", StringComparison.Ordinal))
                throw VmmException.Configuration($"'{argument}' is not an option of this tool; --help lists them.");
            int equals = argument.IndexOf('=', StringComparison.Ordinal);
            _options.Add(equals < 0 ? (argument[2..], null) : (argument[2..equals], argument[(equals + 1)..]));
        }
    }

    internal string Socket => Required("socket");

    internal bool Has(string name)
    {
        _used.Add(name);
        return _options.Exists(option => option.Name == name);
    }

    internal string? Value(string name)
    {
        _used.Add(name);
        return _options.FindLast(option => option.Name == name).Value;
    }

    internal IEnumerable<string> Values(string name)
    {
        _used.Add(name);
        foreach ((string option, string? value) in _options)
        {
            if (option == name && value != null)
                yield return value;
        }
    }

    internal string Required(string name) => Value(name) ?? throw VmmException.Configuration($"--{name}=... is missing; --help lists the options.");

    internal int Number(string name, int otherwise) => Value(name) is { } text ? (int)Size(text) : otherwise;

    internal void RejectUnused()
    {
        foreach ((string name, _) in _options)
        {
            if (!_used.Contains(name))
                throw VmmException.Configuration($"--{name} means nothing here; --help lists the options.");
        }
    }

    internal BackEnd MakeBackEnd()
    {
        var backEnd = new BackEnd(MakeDevice());
        if (Value("features") is { } features)
            backEnd.Features = Hex(features);
        if (Value("protocol-features") is { } offered)
            backEnd.ProtocolFeatures = ProtocolFeatureSet(offered);
        if (Value("without") is { } without)
            backEnd.ProtocolFeatures &= ~ProtocolFeatureSet(without);
        if (Value("state") is { } state)
            backEnd.StateToSave = File.ReadAllBytes(state);
        foreach (string fault in Values("fault"))
            PlanFault(backEnd, fault);
        return backEnd;
    }

    /// <summary>REQUEST:KIND[:VALUE][@FIRST[xTIMES]].</summary>
    internal static PlannedFault PlanFault(BackEnd backEnd, string text)
    {
        string[] where = text.Split('@');
        string[] what = where[0].Split(':');
        int first = 1;
        int times = 1;
        bool good = where.Length <= 2 && what.Length is 2 or 3;
        if (where.Length == 2)
        {
            string[] numbers = where[1].Split('x');
            good &= numbers.Length <= 2 && int.TryParse(numbers[0], out first) && (numbers.Length == 1 || int.TryParse(numbers[1], out times));
        }
        if (!good || !Enum.TryParse(what[0], out FrontEndRequest request) || !Enum.TryParse(what[1], out FaultKind kind) || kind is FaultKind.Act or FaultKind.Before or FaultKind.Payload)
            throw VmmException.Configuration($"'{text}' is no fault: it is REQUEST:KIND[:VALUE][@FIRST[xTIMES]], with a kind of {string.Join(", ", Enum.GetNames<FaultKind>())} "
                + "but Act, Before and Payload.");
        return backEnd.Plan(request, new Fault(kind, what.Length == 3 ? Size(what[2]) : 0), first, times);
    }

    /// <summary>A number, decimal or after 0x hexadecimal, with K, M or G.</summary>
    internal static ulong Size(string text)
    {
        int shift = text.Length == 0 ? 0 : char.ToUpperInvariant(text[^1]) switch { 'K' => 10, 'M' => 20, 'G' => 30, _ => 0 };
        string digits = shift == 0 ? text : text[..^1];
        bool parsed = digits.StartsWith("0x", StringComparison.Ordinal)
            ? ulong.TryParse(digits.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong value)
            : ulong.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out value);
        return parsed ? value << shift : throw VmmException.Configuration($"'{text}' is not a number.");
    }

    private static ulong Hex(string text) => Size(text.StartsWith("0x", StringComparison.Ordinal) ? text : "0x" + text);

    private static ProtocolFeatures ProtocolFeatureSet(string text)
    {
        if (!text.Contains(',', StringComparison.Ordinal) && !Enum.TryParse<ProtocolFeatures>(text, out _))
            return (ProtocolFeatures)Hex(text);
        ProtocolFeatures all = 0;
        foreach (string name in text.Split(','))
        {
            if (!Enum.TryParse(name, out ProtocolFeatures feature))
                throw VmmException.Configuration($"'{name}' is no protocol feature; they are {string.Join(", ", Enum.GetNames<ProtocolFeatures>())}.");
            all |= feature;
        }
        return all;
    }

    internal DeviceModel MakeDevice()
    {
        switch (Required("device"))
        {
            case "blk":
                var disk = new BlkDevice(Required("path"), Has("read-only"), Number("queues", 1), Value("id") ?? "vhost-user-blk") { DelayMilliseconds = Number("delay", 0) };
                return disk;
            case "fs":
                var fs = new FsDevice(Required("dir"), Required("tag"), Size(Value("window") ?? "0"), Number("queues", 1));
                fs.Server.MapsReadOnlyFirst = Has("read-only-first");
                fs.Server.CacheSeconds = (ulong)Number("cache", 0);
                return fs;
            case "rng":
                return new RngDevice();
            case "echo":
                return new EchoDevice(Number("queues", 1));
            case "shmem":
                var sizes = new ulong[ShmemConfig.MaximumRegions];
                foreach (string region in Values("region"))
                {
                    string[] parts = region.Split(':');
                    if (parts.Length != 2 || Size(parts[0]) >= ShmemConfig.MaximumRegions)
                        throw VmmException.Configuration($"'{region}' is no region: it is ID:SIZE, with an identifier below {ShmemConfig.MaximumRegions}.");
                    sizes[Size(parts[0])] = Size(parts[1]);
                }
                return new ShmemDevice(sizes, Number("queues", 1));
            case var other:
                throw VmmException.Configuration($"There is no device '{other}'; there are blk, fs, rng, echo and shmem.");
        }
    }
}
