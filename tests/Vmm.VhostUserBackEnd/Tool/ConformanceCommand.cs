namespace Vmm.VhostUserBackEnd.Tool;

internal static class ConformanceCommand
{
    internal static int Run(ToolOptions options) => options.Has("x") ? 1 : 2;
}
