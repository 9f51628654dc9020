namespace Vmm.Machine.Console;

/// <summary>
/// Hears what a guest writes to its console, as text: decoded, without escape sequences and other control characters but tabs. The calls come
/// one at a time, in the console's order, on a thread of the machine's own; while one takes long, the guest may have to wait.
/// </summary>
public interface IConsoleListener
{
    /// <summary>A line has ended.</summary>
    /// <param name="at">When, since the machine was made.</param>
    /// <param name="line">The whole line, without its end; 8192 characters at most (a longer one comes as several).</param>
    void Line(TimeSpan at, string line);

    /// <summary>The last line has grown and not ended, as a prompt does.</summary>
    /// <param name="at">When, since the machine was made.</param>
    /// <param name="text">All of it so far.</param>
    void Unfinished(TimeSpan at, string text);
}
