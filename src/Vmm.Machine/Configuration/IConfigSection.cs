namespace Vmm.Machine.Configuration;

/// <summary>A section of <c>key=value</c> fields that can say itself.</summary>
internal interface IConfigSection
{
    /// <summary>Tells every field.</summary>
    void WriteTo(IConfigWriter writer);
}
