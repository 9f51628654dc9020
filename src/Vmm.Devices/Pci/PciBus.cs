using Vmm.Core;
using static Vmm.Devices.Pci.PciRegisters;

namespace Vmm.Devices.Pci;

/// <summary>
/// The root bus: 32 devices of 8 functions. Finding a function takes no lock and is one array access, because a guest's scan mostly
/// asks for what is not there.
/// </summary>
public sealed class PciBus
{
    private readonly IPciFunction?[] _functions = new IPciFunction?[DeviceCount * FunctionCount];
    private readonly string?[] _names = new string?[DeviceCount * FunctionCount];
    private readonly Lock _writers = new();

    // Bit n: device n has functions other than 0.
    private uint _multiFunction;

    /// <summary>Puts a function on the bus.</summary>
    /// <param name="device">0 to 31.</param>
    /// <param name="function">0 to 7. A guest finds functions other than 0 only where there is a function 0.</param>
    /// <param name="pciFunction">What answers.</param>
    /// <param name="name">Named in errors.</param>
    /// <exception cref="VmmException">The place does not exist or is taken.</exception>
    public void Add(int device, int function, IPciFunction pciFunction, string name)
    {
        ArgumentNullException.ThrowIfNull(pciFunction);
        if ((uint)device >= DeviceCount || (uint)function >= FunctionCount)
        {
            throw VmmException.Configuration(
                $"Cannot put {name} on the PCI bus at {device:x2}.{function}: there are devices 00 to 1f with functions 0 to 7.");
        }
        lock (_writers)
        {
            int at = device * FunctionCount + function;
            if (_functions[at] is not null)
            {
                throw VmmException.Configuration(
                    $"Cannot put {name} on the PCI bus at {device:x2}.{function}: {_names[at]} is there already.");
            }
            _names[at] = name;
            Volatile.Write(ref _functions[at], pciFunction);
            UpdateMultiFunction(device);
        }
    }

    /// <summary>Puts a function 0 at the lowest free device.</summary>
    /// <returns>The device's number.</returns>
    /// <exception cref="VmmException">All 32 are taken.</exception>
    public int AddAtFreeDevice(IPciFunction pciFunction, string name)
    {
        lock (_writers)
        {
            for (int device = 0; device < DeviceCount; device++)
            {
                if (AnyFunction(device, 0))
                    continue;
                Add(device, 0, pciFunction, name);
                return device;
            }
        }
        throw VmmException.Configuration($"Cannot put {name} on the PCI bus: all {DeviceCount} devices are taken. Remove a device.");
    }

    /// <summary>Takes a function off the bus; false when there is none.</summary>
    public bool Remove(int device, int function)
    {
        if ((uint)device >= DeviceCount || (uint)function >= FunctionCount)
            return false;
        lock (_writers)
        {
            int at = device * FunctionCount + function;
            if (_functions[at] is null)
                return false;
            Volatile.Write(ref _functions[at], null);
            _names[at] = null;
            UpdateMultiFunction(device);
            return true;
        }
    }

    /// <summary>What is on the bus, in the order of addresses.</summary>
    public IReadOnlyList<(int Device, int Function, string Name)> Functions
    {
        get
        {
            lock (_writers)
            {
                var list = new List<(int, int, string)>();
                for (int i = 0; i < _functions.Length; i++)
                {
                    if (_names[i] is string name)
                        list.Add((i / FunctionCount, i % FunctionCount, name));
                }
                return list;
            }
        }
    }

    /// <summary>Resets every function.</summary>
    public void Reset()
    {
        for (int i = 0; i < _functions.Length; i++)
            Volatile.Read(ref _functions[i])?.Reset();
    }

    /// <summary>Reads configuration space; ones where no function is (PCI Local Bus 3.0 section 6.1).</summary>
    /// <param name="bus">Only bus 0 is there.</param>
    /// <param name="deviceAndFunction">The device's number times 8 plus the function's, 0 to 255.</param>
    /// <param name="offset">First byte in configuration space.</param>
    /// <param name="data">Receives 1 to 8 bytes.</param>
    public void Read(uint bus, uint deviceAndFunction, int offset, Span<byte> data)
    {
        IPciFunction? function = Find(bus, deviceAndFunction);
        if (function is null || (uint)offset > (uint)(Size - data.Length))
        {
            data.Fill(0xFF);
            return;
        }
        function.ReadConfiguration(offset, data);
        // Whether there are more functions is the bus's to know.
        if (deviceAndFunction % FunctionCount == 0 && offset <= HeaderType && HeaderType - offset < data.Length &&
            (Volatile.Read(ref _multiFunction) >> (int)(deviceAndFunction / FunctionCount) & 1) != 0)
        {
            data[HeaderType - offset] |= HeaderMultiFunction;
        }
    }

    /// <summary>Writes configuration space; dropped where no function is.</summary>
    public void Write(uint bus, uint deviceAndFunction, int offset, ReadOnlySpan<byte> data)
    {
        IPciFunction? function = Find(bus, deviceAndFunction);
        if (function is not null && (uint)offset <= (uint)(Size - data.Length))
            function.WriteConfiguration(offset, data);
    }

    private IPciFunction? Find(uint bus, uint deviceAndFunction) =>
        bus == 0 && deviceAndFunction < (uint)_functions.Length ? Volatile.Read(ref _functions[deviceAndFunction]) : null;

    private void UpdateMultiFunction(int device)
    {
        uint bit = 1u << device;
        Volatile.Write(ref _multiFunction, AnyFunction(device, 1) ? _multiFunction | bit : _multiFunction & ~bit);
    }

    private bool AnyFunction(int device, int from)
    {
        for (int function = from; function < FunctionCount; function++)
        {
            if (_functions[device * FunctionCount + function] is not null)
                return true;
        }
        return false;
    }
}
