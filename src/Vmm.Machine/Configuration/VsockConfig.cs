using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--vsock vhost_user=on,socket=PATH,…</c>: a virtio socket device, served by an external back-end, which has its CID.</summary>
/// <param name="BackEnd">Where it is.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record VsockConfig(BackEndOptions BackEnd, VirtioOptions Virtio) : IConfigSection
{
    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("vsock", ["vhost_user", .. BackEndOptions.Keys, .. VirtioOptions.Keys], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--vsock", "vhost_user=on" + BackEndOptions.Syntax + VirtioOptions.Syntax,
        "A socket device that a vhost-user back-end serves (vhost-device-vsock). Default: none.",
        "vsock", null, OptionShape.Fields, ["vhost_user=on", .. BackEndOptions.Words, .. VirtioOptions.Words]);

    /// <summary>Reads and checks the section; null where nothing is said of it.</summary>
    /// <exception cref="VmmException">A value is wrong or there is no back-end.</exception>
    public static VsockConfig? From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        if (fields.All.Count == 0)
            return null;
        if (!fields.Flag("vhost_user", false))
            throw VmmException.Configuration($"{fields.Origin}: a socket device needs an external back-end so far; write vhost_user=on,socket=PATH.");
        return new VsockConfig(BackEndOptions.From(fields), VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Flag("vhost_user", true);
        BackEnd.WriteTo(writer);
        Virtio.WriteTo(writer);
    }
}
