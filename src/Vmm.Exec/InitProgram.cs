using System.Buffers.Binary;
using System.Text;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Exec;

/// <summary>
/// The guest's init, assembled for one run: it loads modules, makes the root, opens the ports of the command's streams, runs the command and
/// says how that ended. All that it needs to know is data in it, so it parses nothing.
/// </summary>
/// <remarks>
/// Register use: r15d is what a failure of the present step is told as (<see cref="InitCode"/>); the kernel keeps all but rax, rcx and r11.
/// The command's streams are pipes, as programs expect them (a port can be opened only once, and is no place for /dev/stdout), and a thread for
/// each moves what is in them. Threads, since all processes are killed when the command has ended, and these live on until the pipes are empty.
/// </remarks>
internal sealed partial class InitProgram
{
    private const ulong CodeStart = 0x40_0000;
    private const ulong DataStart = 0x1000_0000;
    private const int RelayBuffer = 64 << 10;
    private const int StackSize = 16 << 10;

    // Where ports are looked for: the number of the device among all virtio devices is the kernel's.
    private const int PortPlaces = 64;
    private const int PortNameLength = 16;

    private readonly InitPlan _plan;
    private readonly Assembler _a = new(64);
    private readonly InitData _data = new(DataStart);
    private Label _failed;
    private Label _finish;
    private Label _sleep;
    private Label _findPort;
    private Label _awaitHost;
    private Label _outward;
    private Label _inward;
    private int _marked = -1;
    private readonly ulong _descriptors;
    private readonly ulong _poll;
    private readonly ulong _status;
    private readonly ulong _remaining;
    private readonly ulong _executeError;
    private readonly ulong _pause;
    private readonly ulong _patience;

    private InitProgram(InitPlan plan)
    {
        _plan = plan;
        _failed = _a.CreateLabel();
        _finish = _a.CreateLabel();
        _sleep = _a.CreateLabel();
        _findPort = _a.CreateLabel();
        _awaitHost = _a.CreateLabel();
        _outward = _a.CreateLabel();
        _inward = _a.CreateLabel();
        // Three ports, then three pipes of two ends.
        _descriptors = _data.Zeroes(9 * sizeof(int));
        _poll = _data.Zeroes(8);
        _status = _data.Zeroes(4);
        _executeError = _data.Zeroes(4);
        _remaining = _data.Zeroes(4);
        _pause = Time(0, 2_000_000);
        _patience = Time(2, 0);
    }

    /// <summary>Makes the program's file.</summary>
    internal static byte[] Build(InitPlan plan)
    {
        var program = new InitProgram(plan);
        program.Assemble();
        using var code = new MemoryStream();
        _ = program._a.Assemble(new StreamCodeWriter(code), CodeStart);
        return StaticProgram.Elf(CodeStart, code.ToArray(), program._data);
    }

    private void Assemble()
    {
        LoadModules();
        MakeRoot();
        OpenPorts();
        MakePipes();
        StartRelays();
        StartCommand();
        AwaitCommand();
        Finish();
        Sleep();
        FindPort();
        AwaitHost();
        RelayOutward();
        RelayInward();
    }

    private void LoadModules()
    {
        for (int i = 0; i < _plan.Modules.Count; i++)
        {
            KernelModule module = _plan.Modules[i];
            Label next = _a.CreateLabel();
            Begin(InitStep.LoadModule, i);
            Call(Sys.Open, _data.Text(InitPlan.ModulePath(i)), Sys.ReadOnly | Sys.CloseOnExec);
            CheckFailure();
            _a.mov(r12d, eax);
            _a.mov(edi, r12d);
            Load(rsi, _data.Text(""));
            Load(rdx, module.IsCompressed ? Sys.ModuleCompressed : 0);
            Call(Sys.LoadModule);
            // Loaded already, or built in after all.
            _a.cmp(rax, -Sys.Exists);
            _a.je(next);
            if (module.IsNeeded)
                CheckFailure();
            Mark(ref next);
            _a.mov(edi, r12d);
            Call(Sys.Close);
            Call(Sys.Unlink, _data.Text(InitPlan.ModulePath(i)));
        }
    }

    private void MakeRoot()
    {
        string share = _plan.IsCopyOnWrite ? "/lower" : "/newroot";
        Label mounted = _a.CreateLabel(), again = _a.CreateLabel();
        Begin(InitStep.MountShare);
        // The device may still be on its way: its bus is looked through by a thread of the kernel's.
        _a.mov(r13d, 1000);
        Mark(ref again);
        Mount(InitPlan.Tag, share, "virtiofs", _plan.IsCopyOnWrite ? Sys.MountReadOnly : 0, "");
        _a.test(rax, rax);
        _a.jns(mounted);
        _a.cmp(rax, -Sys.InvalidArgument);
        _a.jne(_failed);
        _a.call(_sleep);
        _a.dec(r13d);
        _a.jnz(again);
        _a.mov(rax, -Sys.InvalidArgument);
        _a.jmp(_failed);
        Mark(ref mounted);
        if (_plan.IsCopyOnWrite)
        {
            Begin(InitStep.MountUpper);
            Mount("tmpfs", "/cow", "tmpfs", 0, "mode=755");
            CheckFailure();
            Begin(InitStep.MakeDirectory);
            Call(Sys.MakeDirectory, _data.Text("/cow/upper"), 0x1ED /* 0755 */);
            CheckFailure();
            Call(Sys.MakeDirectory, _data.Text("/cow/work"), 0x1ED);
            CheckFailure();
            Begin(InitStep.MountOverlay);
            Mount("overlay", "/newroot", "overlay", 0, "lowerdir=/lower,upperdir=/cow/upper,workdir=/cow/work");
            CheckFailure();
        }
        for (int i = 0; i < _plan.Mounts.Count; i++)
        {
            InitMount mount = _plan.Mounts[i];
            Begin(InitStep.Mount, i);
            Call(Sys.MakeDirectory, _data.Text("/newroot" + mount.Directory), 0x1ED);
            Mount(mount.Type, "/newroot" + mount.Directory, mount.Type, mount.Flags, mount.Options);
            if (mount.IsNeeded)
                CheckFailure();
        }
        EnterRoot();
    }

    private void EnterRoot()
    {
        Begin(InitStep.EnterRoot);
        Call(Sys.ChangeDirectory, _data.Text("/newroot"));
        CheckFailure();
        Mount(".", "/", "", Sys.MountMove, "");
        CheckFailure();
        Call(Sys.ChangeRoot, _data.Text("."));
        CheckFailure();
        // What udev would make; and what programs expect of a network without any card.
        foreach ((string name, string target) in new[] { ("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2") })
            Call(Sys.SymbolicLink, _data.Text("/proc/self/" + target), _data.Text("/dev/" + name));
        Call(Sys.SetHostName, _data.Text("vmm"), 3);
        Call(Sys.Socket, Sys.Internet, Sys.Datagrams | Sys.CloseOnExec, 0);
        _a.mov(r12d, eax);
        // struct ifreq: the name in 16 bytes, IFF_UP and IFF_RUNNING.
        byte[] request = new byte[40];
        "lo"u8.CopyTo(request);
        request[16] = 0x41;
        _a.mov(edi, r12d);
        Load(rsi, Sys.SetInterfaceFlags);
        Load(rdx, _data.Bytes(request));
        Call(Sys.Control);
        _a.mov(edi, r12d);
        Call(Sys.Close);
        Label there = _a.CreateLabel();
        Begin(InitStep.ChangeDirectory);
        Call(Sys.ChangeDirectory, _data.Text(_plan.Directory));
        _a.test(rax, rax);
        _a.jns(there);
        if (_plan.IsDirectoryNeeded)
            _a.jmp(_failed);
        else
            Call(Sys.ChangeDirectory, _data.Text("/"));
        Mark(ref there);
    }

    private void OpenPorts()
    {
        for (int port = 0; port < InitPlan.Ports.Length; port++)
        {
            byte[] names = new byte[PortPlaces * PortNameLength];
            for (int i = 0; i < PortPlaces; i++)
                Encoding.ASCII.GetBytes($"/dev/vport{i}p{port + 1}").CopyTo(names.AsSpan(i * PortNameLength));
            Begin(InitStep.OpenPort, port);
            Load(rbp, _data.Bytes(names));
            // The ports for output are never waited on in write(2), but in poll(2), which tells also that the host has closed its end.
            Load(r14, Sys.ReadWrite | Sys.CloseOnExec | (port == 0 ? 0 : Sys.NonBlocking));
            _a.call(_findPort);
            CheckFailure();
            _a.mov(__dword_ptr[Descriptor(port)], eax);
        }
        // The host says so of one port after the other: with the last of them, of the input too.
        for (int port = 1; port < InitPlan.Ports.Length; port++)
        {
            Begin(InitStep.OpenPort, port);
            _a.mov(ebx, __dword_ptr[Descriptor(port)]);
            _a.call(_awaitHost);
            CheckFailure();
        }
    }

    private void MakePipes()
    {
        for (int pipe = 0; pipe < 3; pipe++)
        {
            Begin(InitStep.MakePipe, pipe);
            Call(Sys.Pipe, PipeEnd(pipe, 0), Sys.CloseOnExec);
            CheckFailure();
        }
    }

    private void StartRelays()
    {
        Begin(InitStep.MakeThread);
        _a.mov(__dword_ptr[_remaining], 2);
        for (int stream = 0; stream < 3; stream++)
        {
            bool inward = stream == 0;
            _a.mov(r12d, __dword_ptr[inward ? Descriptor(0) : PipeEnd(stream, 0)]);
            _a.mov(r13d, __dword_ptr[inward ? PipeEnd(0, 1) : Descriptor(stream)]);
            Load(r14, _data.Zeroes(RelayBuffer));
            Load(rbp, _data.Zeroes(8));
            Load(rdi, Sys.ThreadFlags);
            Load(rsi, _data.Zeroes(StackSize) + StackSize);
            Load(rdx, 0);
            Load(r10, 0);
            Load(r8, 0);
            Call(Sys.Clone);
            _a.test(rax, rax);
            _a.js(_failed);
            _a.jz(inward ? _inward : _outward);
        }
    }

    private void StartCommand()
    {
        Label parent = _a.CreateLabel(), next = _a.CreateLabel(), skip = _a.CreateLabel(), refused = _a.CreateLabel(), none = _a.CreateLabel();
        Begin(InitStep.StartCommand);
        // The child borrows this memory, by which it tells what kept it from running the command, and this thread waits until it does not any more.
        Load(rdi, Sys.BorrowingFlags);
        Load(rsi, 0);
        Load(rdx, 0);
        Load(r10, 0);
        Load(r8, 0);
        Call(Sys.Clone);
        _a.test(rax, rax);
        _a.js(_failed);
        _a.jnz(parent);

        Call(Sys.NewSession);
        for (int stream = 0; stream < 3; stream++)
        {
            _a.mov(edi, __dword_ptr[PipeEnd(stream, stream == 0 ? 0 : 1)]);
            Load(rsi, (ulong)stream);
            Call(Sys.Duplicate);
        }
        Load(rbx, _data.Pointers(_plan.Candidates));
        _a.mov(r12d, Sys.NoEntry);
        Mark(ref next);
        _a.mov(rdi, __qword_ptr[rbx]);
        _a.test(rdi, rdi);
        _a.jz(none);
        Load(rsi, _data.Pointers(_plan.Arguments));
        Load(rdx, _data.Pointers(_plan.Environment));
        Call(Sys.Execute);
        _a.neg(eax);
        _a.cmp(eax, Sys.NoEntry);
        _a.je(skip);
        _a.cmp(eax, Sys.NotDirectory);
        _a.je(skip);
        _a.cmp(eax, Sys.AccessDenied);
        _a.jne(refused);
        // As execvp(3): there may be one further on that can be run, and else this is what is told.
        _a.mov(r12d, eax);
        Mark(ref skip);
        _a.add(rbx, 8);
        _a.jmp(next);
        Mark(ref refused);
        _a.mov(r12d, eax);
        Mark(ref none);
        _a.mov(__dword_ptr[_executeError], r12d);
        Call(Sys.Exit, 127);

        Mark(ref parent);
        _a.mov(r12d, eax);
        foreach (int stream in new[] { 0, 1, 2 })
        {
            _a.mov(edi, __dword_ptr[PipeEnd(stream, stream == 0 ? 0 : 1)]);
            Call(Sys.Close);
        }
    }

    private ulong Descriptor(int port) => _descriptors + (ulong)(port * sizeof(int));

    private ulong PipeEnd(int pipe, int end) => Descriptor(3 + (pipe * 2) + end);

    private ulong Time(long seconds, long nanoseconds)
    {
        byte[] time = new byte[16];
        BinaryPrimitives.WriteInt64LittleEndian(time, seconds);
        BinaryPrimitives.WriteInt64LittleEndian(time.AsSpan(8), nanoseconds);
        return _data.Bytes(time);
    }

    private void Begin(InitStep step, int index = 0) => _a.mov(r15d, InitCode.Failure(step, index));

    // An instruction can have one label.
    private void Mark(ref Label label)
    {
        if (_a.Instructions.Count == _marked)
            _a.nop();
        _a.Label(ref label);
        _marked = _a.Instructions.Count;
    }

    private void CheckFailure()
    {
        _a.test(rax, rax);
        _a.js(_failed);
    }

    private void Mount(string source, string target, string type, ulong flags, string options) =>
        Call(Sys.Mount, _data.Text(source), _data.Text(target), _data.Text(type), flags, _data.Text(options));

    private void Call(int number)
    {
        _a.mov(eax, number);
        _a.syscall();
    }

    private void Call(int number, params ReadOnlySpan<ulong> arguments)
    {
        ReadOnlySpan<AssemblerRegister64> registers = [rdi, rsi, rdx, r10, r8, r9];
        for (int i = 0; i < arguments.Length; i++)
            Load(registers[i], arguments[i]);
        Call(number);
    }

    private void Load(AssemblerRegister64 register, ulong value) => _a.mov(register, value);
}
