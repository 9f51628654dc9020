namespace Vmm.Sandbox;

/// <summary>The sandbox itself failed: it could not be built or started, ended by itself, or could not copy. Never a command's own failure.</summary>
public sealed class SandboxException : Exception
{
    /// <summary>With a full sentence: what was tried, why it failed, what to do next.</summary>
    public SandboxException(string message, Exception? inner = null)
        : base(message, inner)
    {
    }
}
