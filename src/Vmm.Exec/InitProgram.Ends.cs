using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Exec;

/// <summary>The command's end, and what its streams' threads do.</summary>
internal sealed partial class InitProgram
{
    private void AwaitCommand()
    {
        Label again = _a.CreateLabel(), ended = _a.CreateLabel(), reap = _a.CreateLabel(), gone = _a.CreateLabel();
        Label streams = _a.CreateLabel(), drained = _a.CreateLabel(), told = _a.CreateLabel(), signalled = _a.CreateLabel();

        // Orphans are reaped all along.
        Mark(ref again);
        Call(Sys.Wait, ulong.MaxValue, _status, 0, 0);
        _a.cmp(eax, r12d);
        _a.je(ended);
        _a.cmp(rax, -Sys.NoChild);
        _a.jne(again);
        Mark(ref ended);
        _a.mov(ebx, __dword_ptr[_status]);

        // What it left behind ends with it, and with that the pipes. A process that a broken kernel does not let die is not waited for.
        Call(Sys.Kill, ulong.MaxValue, Sys.SignalKill);
        Load(r14, 0);
        _a.mov(r13d, 1000);
        Mark(ref reap);
        Call(Sys.Wait, ulong.MaxValue, _poll, Sys.NoHang, 0);
        _a.test(rax, rax);
        _a.jg(reap);
        _a.js(gone);
        _a.call(_sleep);
        _a.dec(r13d);
        _a.jnz(reap);
        Load(r14, _patience);
        Mark(ref gone);

        // Without a limit: whoever reads the output on the host may be slow.
        Mark(ref streams);
        _a.mov(edx, __dword_ptr[_remaining]);
        _a.test(edx, edx);
        _a.jz(drained);
        Load(rdi, _remaining);
        Load(rsi, Sys.FutexWait);
        _a.mov(r10, r14);
        Call(Sys.Futex);
        _a.cmp(rax, -Sys.TimedOut);
        _a.jne(streams);
        Mark(ref drained);
        Call(Sys.Synchronise);

        _a.mov(r15d, (uint)InitEnd.NotExecuted << 24);
        _a.mov(eax, __dword_ptr[_executeError]);
        _a.test(eax, eax);
        _a.jnz(told);
        _a.mov(eax, ebx);
        _a.and(eax, 0x7F);
        _a.jnz(signalled);
        _a.movzx(eax, bh);
        _a.mov(r15d, (uint)InitEnd.Exited << 24);
        _a.jmp(told);
        Mark(ref signalled);
        _a.mov(r15d, (uint)InitEnd.Signalled << 24);
        Mark(ref told);
        _a.or(r15d, eax);
        _a.jmp(_finish);
    }

    /// <summary>Says how it ended, in r15d: at the exit port; and on the console where the kernel does not let programs use ports.</summary>
    private void Finish()
    {
        Label locked = _a.CreateLabel(), digit = _a.CreateLabel(), letter = _a.CreateLabel(), forever = _a.CreateLabel(), pause = _a.CreateLabel();
        Mark(ref _failed);
        _a.neg(eax);
        _a.movzx(eax, al);
        _a.or(r15d, eax);

        Mark(ref _finish);
        Call(Sys.PortPermission, ExitPort, 4, 1);
        _a.test(rax, rax);
        _a.jnz(locked);
        _a.mov(edx, (int)ExitPort);
        _a.mov(eax, r15d);
        _a.@out(dx, eax);
        // The machine ends now. Until it does, nothing is to happen to the ports: a kernel that goes down takes its devices with it.
        Mark(ref locked);
        _a.mov(r13d, 500);
        Mark(ref pause);
        _a.call(_sleep);
        _a.dec(r13d);
        _a.jnz(pause);

        byte[] text = [.. "\n"u8, .. System.Text.Encoding.ASCII.GetBytes(ConsoleMark), .. "00000000\n"u8];
        ulong message = _data.Bytes(text);
        Load(rbx, message + 1 + (ulong)ConsoleMark.Length);
        _a.mov(r13d, 8);
        Mark(ref digit);
        _a.rol(r15d, 4);
        _a.mov(eax, r15d);
        _a.and(eax, 0xF);
        _a.add(eax, '0');
        _a.cmp(eax, '9');
        _a.jbe(letter);
        _a.add(eax, 'A' - '9' - 1);
        Mark(ref letter);
        _a.mov(__byte_ptr[rbx], al);
        _a.inc(rbx);
        _a.dec(r13d);
        _a.jnz(digit);
        Call(Sys.Write, 2, message, (ulong)text.Length);
        // tcdrain(3): until it is out.
        Call(Sys.Control, 2, Sys.TerminalDrain, 1);
        Call(Sys.Reboot, Sys.RebootMagic1, Sys.RebootMagic2, Sys.PowerOff, 0);
        Call(Sys.Reboot, Sys.RebootMagic1, Sys.RebootMagic2, Sys.Restart, 0);
        Mark(ref forever);
        Call(Sys.Pause);
        _a.jmp(forever);
    }

    /// <summary>A few milliseconds.</summary>
    private void Sleep()
    {
        Mark(ref _sleep);
        Call(Sys.Sleep, _pause, 0);
        _a.ret();
    }

    /// <summary>Opens the first that is there of the paths at rbp with the flags in r14, and waits for it; gives what open(2) gave.</summary>
    private void FindPort()
    {
        Label round = _a.CreateLabel(), next = _a.CreateLabel(), found = _a.CreateLabel();
        Mark(ref _findPort);
        _a.mov(r13d, 15_000);
        Mark(ref round);
        _a.xor(r12d, r12d);
        Mark(ref next);
        _a.lea(rdi, __[rbp + r12]);
        _a.mov(rsi, r14);
        Load(rdx, 0);
        Call(Sys.Open);
        _a.test(rax, rax);
        _a.jns(found);
        _a.add(r12d, PortNameLength);
        _a.cmp(r12d, PortPlaces * PortNameLength);
        _a.jb(next);
        _a.call(_sleep);
        _a.dec(r13d);
        _a.jnz(round);
        _a.mov(rax, -Sys.NoDevice);
        Mark(ref found);
        _a.ret();
    }

    /// <summary>Waits until the host has opened its end of the port whose descriptor is in ebx; gives 0, or an error.</summary>
    private void AwaitHost()
    {
        Label again = _a.CreateLabel(), open = _a.CreateLabel();
        Mark(ref _awaitHost);
        _a.mov(r13d, 15_000);
        Mark(ref again);
        _a.mov(__dword_ptr[_poll], ebx);
        _a.mov(__dword_ptr[_poll + 4], (int)Sys.PollOut);
        Call(Sys.Poll, _poll, 1, 0);
        _a.xor(eax, eax);
        _a.test(__byte_ptr[_poll + 6], Sys.PollHangUp);
        _a.jz(open);
        _a.call(_sleep);
        _a.dec(r13d);
        _a.jnz(again);
        _a.mov(rax, -Sys.TimedOut);
        Mark(ref open);
        _a.ret();
    }

    /// <summary>A thread: from the pipe r12 to the port r13, by the buffer r14 and the struct pollfd at rbp.</summary>
    private void RelayOutward()
    {
        Label read = _a.CreateLabel(), write = _a.CreateLabel(), over = _a.CreateLabel();
        Mark(ref _outward);
        Mark(ref read);
        _a.mov(edi, r12d);
        _a.mov(rsi, r14);
        Load(rdx, RelayBuffer);
        Call(Sys.Read);
        _a.cmp(rax, -Sys.Interrupted);
        _a.je(read);
        _a.test(rax, rax);
        _a.jle(over);
        _a.mov(ebx, eax);
        _a.mov(r15, r14);
        Mark(ref write);
        _a.mov(__dword_ptr[rbp], r13d);
        _a.mov(__dword_ptr[rbp + 4], (int)Sys.PollOut);
        _a.mov(rdi, rbp);
        Load(rsi, 1);
        Load(rdx, ulong.MaxValue);
        Call(Sys.Poll);
        // Nobody takes it any more: the command is told so by its pipe.
        _a.test(__byte_ptr[rbp + 6], Sys.PollHangUp);
        _a.jnz(over);
        _a.mov(edi, r13d);
        _a.mov(rsi, r15);
        _a.mov(edx, ebx);
        Call(Sys.Write);
        _a.cmp(rax, -Sys.TryAgain);
        _a.je(write);
        _a.cmp(rax, -Sys.Interrupted);
        _a.je(write);
        _a.test(rax, rax);
        _a.jle(over);
        _a.add(r15, rax);
        _a.sub(ebx, eax);
        _a.jnz(write);
        _a.jmp(read);
        Mark(ref over);
        _a.mov(edi, r12d);
        Call(Sys.Close);
        _a.@lock.dec(__dword_ptr[_remaining]);
        Call(Sys.Futex, _remaining, Sys.FutexWake, int.MaxValue);
        Call(Sys.Exit, 0);
    }

    /// <summary>A thread: from the port r12 to the pipe r13, by the buffer r14.</summary>
    private void RelayInward()
    {
        Label read = _a.CreateLabel(), write = _a.CreateLabel(), over = _a.CreateLabel();
        Mark(ref _inward);
        Mark(ref read);
        _a.mov(edi, r12d);
        _a.mov(rsi, r14);
        Load(rdx, RelayBuffer);
        Call(Sys.Read);
        _a.cmp(rax, -Sys.Interrupted);
        _a.je(read);
        _a.test(rax, rax);
        _a.jle(over);
        _a.mov(ebx, eax);
        _a.mov(r15, r14);
        Mark(ref write);
        _a.mov(edi, r13d);
        _a.mov(rsi, r15);
        _a.mov(edx, ebx);
        Call(Sys.Write);
        _a.cmp(rax, -Sys.Interrupted);
        _a.je(write);
        _a.test(rax, rax);
        _a.jle(over);
        _a.add(r15, rax);
        _a.sub(ebx, eax);
        _a.jnz(write);
        _a.jmp(read);
        Mark(ref over);
        _a.mov(edi, r13d);
        Call(Sys.Close);
        Call(Sys.Exit, 0);
    }

    private const ulong ExitPort = Devices.Debugging.ExitPort.Port;

    /// <summary>Before the code, in hexadecimal, where it is told on the console.</summary>
    internal const string ConsoleMark = "vmm-init: ";

    /// <summary>Linux's system calls on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl), and what they take and give.</summary>
    private static class Sys
    {
        internal const int Read = 0, Write = 1, Open = 2, Close = 3, Poll = 7, Control = 16, Duplicate = 33, Pause = 34, Sleep = 35, Socket = 41,
            Clone = 56, Execute = 59, Exit = 60, Wait = 61, Kill = 62, ChangeDirectory = 80, MakeDirectory = 83, Unlink = 87, SymbolicLink = 88,
            NewSession = 112, ChangeRoot = 161, Synchronise = 162, Mount = 165, Reboot = 169, SetHostName = 170, PortPermission = 173,
            Futex = 202, Pipe = 293, LoadModule = 313;

        internal const ulong ReadOnly = 0, ReadWrite = 2, NonBlocking = 0x800, CloseOnExec = 0x80000;
        internal const ulong MountReadOnly = 1, MountMove = 0x2000;
        internal const ulong ModuleCompressed = 4;
        internal const ulong Internet = 2, Datagrams = 2, SetInterfaceFlags = 0x8914, TerminalDrain = 0x5409;
        internal const ulong NoHang = 1, SignalKill = 9;
        internal const ulong FutexWait = 0x80, FutexWake = 0x81;
        internal const ulong PollOut = 4;
        internal const int PollHangUp = 0x10;

        // CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM; and CLONE_VM, VFORK with SIGCHLD.
        internal const ulong ThreadFlags = 0x50F00, BorrowingFlags = 0x4111;
        internal const ulong RebootMagic1 = 0xFEE1DEAD, RebootMagic2 = 672274793, PowerOff = 0x4321FEDC, Restart = 0x1234567;

        internal const int NoEntry = 2, Interrupted = 4, NoChild = 10, TryAgain = 11, AccessDenied = 13, Exists = 17, NoDevice = 19,
            NotDirectory = 20, InvalidArgument = 22, TimedOut = 110;
    }
}
