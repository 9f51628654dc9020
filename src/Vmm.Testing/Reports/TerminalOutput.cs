using System.Text;
using Spectre.Console;
using Vmm.Core.Interop;

namespace Vmm.Testing.Reports;

/// <summary>A terminal by its descriptor, for Spectre.Console; its size is asked for each time, as windows change.</summary>
internal sealed unsafe class TerminalOutput(int fd) : IAnsiConsoleOutput
{
    public TextWriter Writer { get; } = new DescriptorWriter(fd);

    public bool IsTerminal => LibC.isatty(fd) == 1;

    public int Width => Size().Columns;

    public int Height => Size().Rows;

    public void SetEncoding(Encoding encoding)
    {
        // UTF-8, as everything on Linux.
    }

    private (int Columns, int Rows) Size()
    {
        winsize size;

        // The pointer is to a local. A terminal that does not know its size (a serial line) is what they all once were.
        if (LibC.ioctl(fd, LibC.TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
            return (80, 24);
        return (size.ws_col, size.ws_row);
    }
}
