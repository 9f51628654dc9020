namespace Vmm.Machine.Configuration;

/// <summary>One <c>key=value</c> as somebody wrote it, and where.</summary>
/// <param name="Key">The key; empty for a section that is one plain value.</param>
/// <param name="Value">The value with quotes and escapes undone; null when there was no "=" at all, or when it is a list.</param>
/// <param name="Items">The items of <c>[a,b]</c>; null when it is no list.</param>
/// <param name="Origin">Where it was written, as the start of an error message: "--memory", "vm.json: memory", "VMM_MEMORY__SIZE".</param>
public sealed record OptionField(string Key, string? Value, IReadOnlyList<string>? Items, string Origin);
