using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// The state inside the back-end, which it writes into a pipe and reads from one (the specification's "Migrating back-end state"), while all
/// queues are stopped.
/// </summary>
public sealed partial class VhostUserBackEnd
{
    /// <summary>The most bytes of state that are taken from a back-end.</summary>
    internal const int MostState = 64 << 20;

    /// <summary>Whether it can give and take its state.</summary>
    public bool HasState => Offer.Has(ProtocolFeatures.DeviceState);

    /// <summary>Takes the state; null where the back-end has none.</summary>
    /// <exception cref="VmmException">It does not give it. It can be used as before then, or another one when it comes.</exception>
    public byte[]? SaveState() => Invoke(() =>
    {
        if (!HasState)
            return null;
        try
        {
            return Save(_channel ?? throw BackEndException.Broken("there is none"));
        }
        catch (BackEndException e)
        {
            if (!e.IsRefusal)
                Break(e.Message);
            throw VmmException.Host($"Cannot save the state of {_settings.Id}: its back-end does not give it: {e.Message}.");
        }
    });

    /// <summary>Gives the back-end a state to begin with; before any queue is started.</summary>
    /// <exception cref="VmmException">It does not take it, and has been let go of: nobody knows what it has of it.</exception>
    public void LoadState(byte[]? state) => _ = Invoke(() =>
    {
        if (state == null)
            return true;
        try
        {
            if (!HasState)
                throw BackEndException.Refused("it cannot take one (it lacks the protocol feature DEVICE_STATE)");
            Load(_channel ?? throw BackEndException.Broken("there is none"), state);
            _announces = true;
            return true;
        }
        catch (BackEndException e)
        {
            Break(e.Message);
            throw VmmException.Host($"Cannot restore the state of {_settings.Id}: its back-end does not take it: {e.Message}.");
        }
    });

    private byte[] Save(MainChannel channel)
    {
        using FileDescriptor pipe = Begin(channel, DeviceStateTransfer.Save);
        byte[] state = ReadToEnd(pipe);
        Check(channel, "gave");
        return state;
    }

    private void Load(MainChannel channel, byte[] state)
    {
        using (FileDescriptor pipe = Begin(channel, DeviceStateTransfer.Load))
            WriteAll(pipe, state);
        Check(channel, "took");
    }

    /// <summary>Opens the way for the state, and gives our end of it.</summary>
    private static unsafe FileDescriptor Begin(MainChannel channel, uint direction)
    {
        int* ends = stackalloc int[2];
        if (LibC.pipe2(ends, LibC.O_CLOEXEC) < 0)
            throw BackEndException.Refused($"there is no pipe for it: {LibC.strerror(LibC.errno)}");
        using var read = new FileDescriptor(ends[0]);
        using var write = new FileDescriptor(ends[1]);
        (FileDescriptor ours, FileDescriptor theirs) = direction == DeviceStateTransfer.Save ? (read, write) : (write, read);
        ulong answer = channel.AskForDescriptor<ulong, DeviceStateTransfer>(
            FrontEndRequest.SetDeviceStateFd, new DeviceStateTransfer(direction, 0), theirs.Number, out FileDescriptor? another);
        if ((answer & 0xFF) != 0)
        {
            another?.Dispose();
            throw BackEndException.Refused($"it refused SET_DEVICE_STATE_FD (its answer is {answer})");
        }
        if ((answer & VringDescriptor.NoDescriptor) == 0)
            return OwnOf(another ?? throw BackEndException.Broken("it says that its answer to SET_DEVICE_STATE_FD came with a descriptor, and none came"), direction);
        if (another != null)
        {
            another.Dispose();
            throw BackEndException.Broken("its answer to SET_DEVICE_STATE_FD came with a descriptor, and says that none did");
        }
        int copy = LibC.fcntl(ours.Number, LibC.F_DUPFD_CLOEXEC, 0);
        return copy >= 0 ? NotBlocking(new FileDescriptor(copy)) : throw BackEndException.Refused($"there is no descriptor for it: {LibC.strerror(LibC.errno)}");
    }

    /// <summary>
    /// Opens the back-end's pipe for us alone: whoever has the same open file could make it blocking. Nothing but a pipe is taken, since a
    /// file of a file system in user space, for one, lets us wait for ever.
    /// </summary>
    private static unsafe FileDescriptor OwnOf(FileDescriptor pipe, uint direction)
    {
        using (pipe)
        {
            statx status;
            if (LibC.statx(pipe.Number, "", LibC.AT_EMPTY_PATH | LibC.AT_STATX_DONT_SYNC, LibC.STATX_TYPE, &status) < 0 || (status.stx_mode & LibC.S_IFMT) != LibC.S_IFIFO)
                throw BackEndException.Broken("its answer to SET_DEVICE_STATE_FD came with a descriptor that is no pipe");
            int access = direction == DeviceStateTransfer.Save ? LibC.O_RDONLY : LibC.O_WRONLY;
            int own = LibC.open($"/proc/self/fd/{pipe.Number}", access | LibC.O_NONBLOCK | LibC.O_CLOEXEC, 0);
            return own >= 0 ? new FileDescriptor(own) : throw BackEndException.Broken($"the pipe that it gives for its state cannot be opened: {LibC.strerror(LibC.errno)}");
        }
    }

    private static FileDescriptor NotBlocking(FileDescriptor descriptor)
    {
        _ = LibC.fcntl(descriptor.Number, LibC.F_SETFL, LibC.fcntl(descriptor.Number, LibC.F_GETFL, 0) | LibC.O_NONBLOCK);
        return descriptor;
    }

    private unsafe byte[] ReadToEnd(FileDescriptor pipe)
    {
        using var state = new MemoryStream();
        byte[] buffer = new byte[64 << 10];
        long deadline = Environment.TickCount64 + _settings.Timeouts.Stop;
        while (true)
        {
            nint count;
            fixed (byte* room = buffer)
                count = LibC.read(pipe.Number, room, (nuint)buffer.Length);
            if (count == 0)
                return state.ToArray();
            if (count > 0)
            {
                if (state.Length + count > MostState)
                    throw BackEndException.Broken($"its state has more than {MostState >> 20} MiB");
                state.Write(buffer, 0, (int)count);
                continue;
            }
            Await(pipe, LibC.POLLIN, deadline, "does not finish giving its state");
        }
    }

    private unsafe void WriteAll(FileDescriptor pipe, ReadOnlySpan<byte> state)
    {
        long deadline = Environment.TickCount64 + _settings.Timeouts.Stop;
        while (!state.IsEmpty)
        {
            nint count;
            fixed (byte* start = state)
                count = LibC.write(pipe.Number, start, (nuint)state.Length);
            if (count >= 0)
                state = state[(int)count..];
            else
                Await(pipe, LibC.POLLOUT, deadline, "does not take all of its state");
        }
    }

    /// <summary>After a read or a write that failed: waits where that can help.</summary>
    private static unsafe void Await(FileDescriptor pipe, short events, long deadline, string does)
    {
        int error = LibC.errno;
        if (error == LibC.EINTR)
            return;
        if (error != LibC.EAGAIN)
            throw BackEndException.Broken($"the way for its state failed: {LibC.strerror(error)}");
        var wanted = new pollfd { fd = pipe.Number, events = events };
        // All in all: it could give a byte now and then, and go on for ever.
        long left = deadline - Environment.TickCount64;
        if (left <= 0 || LibC.poll(&wanted, 1, (int)left) == 0)
            throw BackEndException.Broken($"it {does} in time");
    }

    private void Check(MainChannel channel, string did)
    {
        ulong answer = channel.Ask<ulong>(FrontEndRequest.CheckDeviceState, default, _settings.Timeouts.Stop);
        if (answer != 0)
            throw BackEndException.Refused($"it {did} its state, and says that this failed (its answer to CHECK_DEVICE_STATE is {answer})");
    }
}
