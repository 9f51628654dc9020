using System.Globalization;
using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Devices.Debugging;
using Vmm.Machine;
using Vmm.Machine.Configuration;

// live-machine OPTION...: the options of 'vmm run' with a value each. Commands on standard input, one to a line:
//   balloon SIZE | memory SIZE | resize DISK | link CARD on|off | pause | resume | save DEVICE FILE | load DEVICE FILE | tell | wait balloon|memory SIZE | sleep SECONDS
// Each is answered by a line on standard error. The guest's console had better not be tty, but where VMM_LIVE_COMMANDS names a named pipe:
// then commands come from there, and the answers go to the file of that name with ".answers".
string? pipe = Environment.GetEnvironmentVariable("VMM_LIVE_COMMANDS");
// Open for both, so that it does not end with those who write.
using StreamReader? commandPipe = pipe == null ? null : new StreamReader(new FileStream(pipe, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, 0));
using StreamWriter? answerFile = pipe == null ? null : new StreamWriter(pipe + ".answers") { AutoFlush = true };
var builder = new VmConfigBuilder();
for (int i = 0; i + 1 < args.Length; i += 2)
    builder.AddOption(VmConfig.Options.First(option => option.Name == args[i]), args[i + 1]);
try
{
    using var machine = new VirtualMachine(builder.Build(), new Quiet());
    var commands = new Thread(() => Obey(machine, commandPipe ?? Console.In, answerFile ?? Console.Error)) { IsBackground = true };
    commands.Start();
    VmExit exit = machine.Run();
    Console.Error.WriteLine($"ended {exit.Reason}");
    return exit.Reason == VmExitReason.PowerOff ? 0 : 1;
}
catch (VmmException e)
{
    Console.Error.WriteLine(e.Message);
    return 2;
}

static void Obey(VirtualMachine machine, TextReader commands, TextWriter answers)
{
    while (commands.ReadLine() is { } line)
    {
        try
        {
            answers.WriteLine($"{line}: {Do(machine, line.Split(' '))}");
        }
        catch (VmmException e)
        {
            answers.WriteLine($"{line}: {e.Message}");
        }
    }
}

static string Do(VirtualMachine machine, string[] words)
{
    switch (words)
    {
        case ["balloon", var size]:
            machine.SetBalloonSize(Bytes(size));
            break;
        case ["memory", var size]:
            machine.SetPluggedMemory(Bytes(size));
            break;
        case ["resize", var disk]:
            return machine.ResizeDisk(disk).ToString(CultureInfo.InvariantCulture);
        case ["link", var card, var up]:
            machine.SetLink(card, up == "on");
            break;
        case ["save", var device, var path]:
            byte[] state = machine.SaveBackEndState(device) ?? [];
            File.WriteAllBytes(path, state);
            return $"{state.Length} bytes";
        case ["load", var device, var path]:
            machine.LoadBackEndState(device, File.ReadAllBytes(path));
            break;
        case ["pause"]:
            machine.Pause();
            break;
        case ["resume"]:
            machine.Resume();
            break;
        case ["wait", var what, var size]:
            while ((what == "balloon" ? machine.BalloonSize : machine.PluggedMemory) != Bytes(size))
                Thread.Sleep(50);
            break;
        case ["sleep", var seconds]:
            Thread.Sleep(int.Parse(seconds, CultureInfo.InvariantCulture) * 1000);
            break;
        case ["tell"]:
            break;
        default:
            return "not understood";
    }
    return $"balloon={machine.BalloonSize} memory={machine.PluggedMemory} resident_kib={ResidentKib()}";
}

static ulong Bytes(string size) => ByteSize.TryParse(size, out ulong bytes) ? bytes : throw VmmException.Configuration($"{size} is not a size");

static string ResidentKib() =>
    File.ReadLines("/proc/self/status").First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal))["VmRSS:".Length..^"kB".Length].Trim();

internal sealed class Quiet : IMachineObserver
{
    public void Started(LoadedKernel kernel) => Console.Error.WriteLine("started");

    public void Restarting()
    {
    }

    public void DeviceTrouble(string sentence) => Console.Error.WriteLine($"vmm: warn: {sentence}");

    public void BootMark(BootMark mark)
    {
    }
}
