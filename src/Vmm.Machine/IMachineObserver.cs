using Vmm.Core.Boot;
using Vmm.Devices.Debugging;

namespace Vmm.Machine;

/// <summary>Is told what happens to a machine while it runs; on the threads where it happens, so it returns quickly and does not throw.</summary>
public interface IMachineObserver
{
    /// <summary>The kernel was loaded and the vCPUs run.</summary>
    void Started(LoadedKernel kernel);

    /// <summary>The guest rebooted, and the machine starts anew.</summary>
    void Restarting();

    /// <summary>Something went wrong at a device, or its driver broke a rule; one sentence. A guest can provoke any number of them.</summary>
    void DeviceTrouble(string sentence);

    /// <summary>The guest has come to a point of its boot that it tells; each point once a boot.</summary>
    void BootMark(BootMark mark);
}
