using Vmm.Core;

namespace Vmm.Virtio.Devices;

/// <summary>Checks that every device makes on a saved state before it restores from it.</summary>
internal static class DeviceStates
{
    /// <summary>Refuses the state of another kind of device.</summary>
    /// <param name="device">The kind, in the words of an error.</param>
    /// <param name="state">What was saved.</param>
    /// <exception cref="VmmException">It is of another kind.</exception>
    internal static T Require<T>(string device, VirtioDeviceState state) where T : VirtioDeviceState
    {
        ArgumentNullException.ThrowIfNull(state);
        return state as T ?? throw VmmException.Configuration(
            $"Cannot restore the {device}: the saved state is of another device ({state.GetType().Name}). The snapshot is damaged or the machine differs.");
    }
}
