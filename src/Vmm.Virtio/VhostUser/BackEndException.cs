namespace Vmm.Virtio.VhostUser;

/// <summary>
/// A back-end did what it must not, or did not do what it must. Never leaves the worker of its device, which ends the connection
/// or the operation for it.
/// </summary>
internal sealed class BackEndException : Exception
{
    private BackEndException(string message, bool isRefusal) : base(message) => IsRefusal = isRefusal;

    /// <summary>The back-end said no, in the way it should: the connection is as good as before.</summary>
    internal bool IsRefusal { get; }

    /// <summary>The connection cannot be used any more.</summary>
    /// <param name="clause">What the back-end did: "it answered ...".</param>
    internal static BackEndException Broken(string clause) => new(clause, false);

    /// <summary>The back-end said no.</summary>
    internal static BackEndException Refused(string clause) => new(clause, true);
}
