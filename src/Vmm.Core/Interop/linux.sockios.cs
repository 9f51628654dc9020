namespace Vmm.Core.Interop;

internal static partial class LibC
{
    internal const uint SIOCGIFFLAGS = 0x8913;
    internal const uint SIOCSIFFLAGS = 0x8914;
    internal const uint SIOCSIFADDR = 0x8916;
    internal const uint SIOCSIFNETMASK = 0x891C;
    internal const uint SIOCGIFMTU = 0x8921;
    internal const uint SIOCSIFMTU = 0x8922;
    internal const uint SIOCSIFHWADDR = 0x8924;
    internal const uint SIOCGIFHWADDR = 0x8927;
}
