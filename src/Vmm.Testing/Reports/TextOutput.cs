using Vmm.Core;

namespace Vmm.Testing.Reports;

/// <summary>Blocks of lines from several threads to one writer: none is torn apart, and an error is kept for the end of the run.</summary>
internal sealed class TextOutput(TextWriter writer, string what)
{
    private readonly Lock _lock = new();
    private Exception? _error;

    /// <summary>Writes them and flushes, or does nothing once it has failed.</summary>
    internal void Write(string lines)
    {
        lock (_lock)
        {
            if (_error is not null)
                return;
            try
            {
                writer.Write(lines);
                writer.Flush();
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException or UnauthorizedAccessException)
            {
                _error = e;
            }
        }
    }

    /// <summary>Says what went wrong, if anything.</summary>
    /// <exception cref="VmmException">Something could not be written.</exception>
    internal void Check()
    {
        lock (_lock)
        {
            if (_error is not null)
                throw VmmException.Host($"Cannot write {what}: {_error.Message.TrimEnd('.')}; what is missing there is in the other reports.", _error);
        }
    }
}
