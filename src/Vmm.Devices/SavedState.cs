using Vmm.Core;

namespace Vmm.Devices;

/// <summary>Checks that every device makes on a state before it restores from it.</summary>
public static class SavedState
{
    /// <summary>Refuses a state written in a version that this program does not read.</summary>
    /// <exception cref="VmmException">The versions differ.</exception>
    public static void RequireVersion(string device, int found, int supported)
    {
        if (found != supported)
        {
            throw VmmException.Configuration(
                $"Cannot restore the {device}: its saved state has version {found}, and this program reads version {supported}. " +
                "Restore with the program that saved it.");
        }
    }

    /// <summary>Refuses a list of the wrong length.</summary>
    /// <exception cref="VmmException">The list is missing or its length is not from <paramref name="least"/> to <paramref
    /// name="most"/>.</exception>
    public static void RequireLength(string device, string what, byte[]? found, int least, int most)
    {
        if (found is null || found.Length < least || found.Length > most)
        {
            string length = found is null ? "missing" : $"{found.Length} bytes long";
            throw VmmException.Configuration(
                $"Cannot restore the {device}: its saved {what} is {length} and has to be {least} to {most} bytes. " +
                "The snapshot is damaged; take another.");
        }
    }
}
