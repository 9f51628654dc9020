namespace Vmm.Core.Boot.Acpi;

/// <summary>What stands between the opcode of a block and its content.</summary>
internal enum AmlBlockKind
{
    /// <summary>A package length.</summary>
    Plain,

    /// <summary>A package length and the size of the buffer.</summary>
    Buffer,

    /// <summary>As a buffer, and an end tag after the content.</summary>
    ResourceTemplate,
}

/// <summary>An open block of an <see cref="AmlWriter"/>; disposing of it (once) ends the block and writes its length.</summary>
public readonly ref struct AmlBlock
{
    private readonly AmlWriter _writer;
    private readonly AmlBlockKind _kind;
    private readonly int _start;
    private readonly int _depth;

    internal AmlBlock(AmlWriter writer, AmlBlockKind kind, int start, int depth)
    {
        _writer = writer;
        _kind = kind;
        _start = start;
        _depth = depth;
    }

    /// <summary>Ends the block.</summary>
    /// <exception cref="InvalidOperationException">A block inside it is still open, or it has ended already.</exception>
    public void Dispose() => _writer.Close(_kind, _start, _depth);
}
