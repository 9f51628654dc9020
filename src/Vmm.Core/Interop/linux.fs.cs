namespace Vmm.Core.Interop;

internal static partial class LibC
{
    internal const uint BLKSSZGET = 0x1268;
    internal const uint BLKGETSIZE64 = 0x80081272;
    internal const uint BLKDISCARD = 0x1277;
    internal const uint BLKIOMIN = 0x1278;
    internal const uint BLKIOOPT = 0x1279;
    internal const uint BLKPBSZGET = 0x127B;
}
