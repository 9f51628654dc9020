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

    /// <summary>The guest's kernel reported a panic; where the configuration says so (on_panic=continue), it goes on.</summary>
    void Panicked()
    {
    }

    /// <summary>A life of the machine has ended, and what it was made of is still there: <see cref="VirtualMachine.DescribeVcpus"/> tells where it stood. It is taken apart when this returns.</summary>
    /// <param name="exit">How it ended; a reboot too where the machine then starts anew.</param>
    void Ending(VmExit exit)
    {
    }

    /// <summary>Something went wrong at a device, or its driver broke a rule; one sentence. A guest can provoke any number of them.</summary>
    void DeviceTrouble(string sentence);

    /// <summary>The guest has come to a point of its boot that it tells; each point once a boot.</summary>
    void BootMark(BootMark mark);
}
