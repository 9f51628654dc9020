using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd;

public sealed unsafe partial class BackEndSession
{
    /// <summary>Bit 8 of SET_VRING_KICK, CALL and ERR: no descriptor comes.</summary>
    private const ulong VringNoDescriptor = 0x100;

    /// <summary>Bit 8 of the reply to SET_DEVICE_STATE_FD: the front-end's own descriptor is used.</summary>
    private const ulong StateNoDescriptor = 0x100;

    private const int StateTransferSave = 0;
    private const int MaximumState = 256 << 20;

    /// <summary>Does what a request asks; null where nothing is to be answered.</summary>
    private Reply? Serve(Message message)
    {
        byte[] payload = message.Payload;
        switch (message.Request)
        {
            case FrontEndRequest.GET_FEATURES:
                return Number(message, BackEnd.Features);
            case FrontEndRequest.GET_PROTOCOL_FEATURES:
                return Number(message, (ulong)BackEnd.ProtocolFeatures);
            case FrontEndRequest.GET_QUEUE_NUM:
                return Number(message, BackEnd.QueueCount);
            case FrontEndRequest.GET_MAX_MEM_SLOTS:
                return Number(message, BackEnd.MaxMemSlots);
            case FrontEndRequest.GET_SHMEM_CONFIG:
                return new Reply(message.Request, ShmemConfig.ToBytes(BackEnd.ShmemSizes, BackEnd.ShmemRegionCount));
            case FrontEndRequest.GET_CONFIG:
                return GetConfig(message);
            case FrontEndRequest.GET_VRING_BASE:
                return GetVringBase(message);
            case FrontEndRequest.GET_INFLIGHT_FD:
                return GetInflight(message);
            case FrontEndRequest.SET_LOG_BASE:
                bool logs = SetLog(message);
                // A payload that is no answer: libvhost-user and passt give back the beginning of the request, its length.
                return HasProtocolFeature(ProtocolFeatures.LOG_SHMFD) ? new Reply(message.Request, Resized(logs ? payload : U64.ToBytes(1), BackEnd.LogReplySize)) : null;
            case FrontEndRequest.SET_DEVICE_STATE_FD:
                return Number(message, SetDeviceState(message));
            case FrontEndRequest.CHECK_DEVICE_STATE:
                _stateThread?.Join();
                _stateThread = null;
                return Number(message, Volatile.Read(ref _stateResult));
            case FrontEndRequest.GET_STATUS:
            case FrontEndRequest.POSTCOPY_END:
            case FrontEndRequest.IOTLB_MSG:
                return Number(message, 0);
        }
        bool done = message.Request switch
        {
            FrontEndRequest.SET_FEATURES => Try(message, U64.Length, () => SetFeatures(U64.Read(payload))),
            FrontEndRequest.SET_PROTOCOL_FEATURES => Try(message, U64.Length, () => AckedProtocolFeatures = (ProtocolFeatures)U64.Read(payload)),
            FrontEndRequest.SET_MEM_TABLE => SetMemoryTable(message),
            FrontEndRequest.ADD_MEM_REG => AddMemoryRegion(message),
            FrontEndRequest.REM_MEM_REG => RemoveMemoryRegion(message),
            FrontEndRequest.SET_BACKEND_REQ_FD => SetChannel(message),
            FrontEndRequest.SET_CONFIG => SetConfig(message),
            FrontEndRequest.SET_INFLIGHT_FD => SetInflight(message),
            FrontEndRequest.SET_VRING_NUM => TryVring(message, (vring, state) => vring.Size = state.Num),
            FrontEndRequest.SET_VRING_BASE => TryVring(message, (vring, state) => vring.Base = (ushort)state.Num),
            FrontEndRequest.SET_VRING_ENABLE => TryVring(message, (vring, state) => vring.SetEnabled(state.Num != 0)),
            FrontEndRequest.SET_VRING_ADDR => SetVringAddress(payload),
            FrontEndRequest.SET_VRING_KICK => SetVringDescriptor(message, (vring, file) => vring.Start(file)),
            FrontEndRequest.SET_VRING_CALL => SetVringDescriptor(message, (vring, file) => vring.SetCall(file, BackEnd.SignalsAtCall)),
            FrontEndRequest.SET_VRING_ERR => SetVringDescriptor(message, (vring, file) => vring.SetErr(file)),
            FrontEndRequest.RESET_DEVICE => ResetDevice(),
            FrontEndRequest.GPU_SET_SOCKET => SetDisplay(message),
            FrontEndRequest.SET_OWNER or FrontEndRequest.SET_LOG_FD or FrontEndRequest.SEND_RARP or FrontEndRequest.NET_SET_MTU
                or FrontEndRequest.SET_STATUS or FrontEndRequest.SET_VRING_ENDIAN => true,
            _ => false,
        };
        return WantsAck(message) ? Number(message, done ? 0u : 1u) : null;
    }

    private bool SetDisplay(Message message)
    {
        if (message.TakeDescriptor() is not { } socket)
            return false;
        BackEnd.Device.DisplayGiven(this, new UnixStream(socket));
        return true;
    }

    private static Reply Number(Message message, ulong value) => new(message.Request, U64.ToBytes(value));

    private static byte[] Resized(byte[] data, int length)
    {
        Array.Resize(ref data, length);
        return data;
    }

    private static bool Try(Message message, int length, Action action)
    {
        if (message.Payload.Length != length)
            return false;
        action();
        return true;
    }

    private void SetFeatures(ulong features)
    {
        AckedFeatures = features;
        // Without the bit there is no SET_VRING_ENABLE: rings run from the start.
        if ((features & DeviceFeatures.ProtocolFeatures) != 0)
            return;
        foreach (Vring vring in _vrings)
            vring.SetEnabled(true);
    }

    private bool SetMemoryTable(Message message)
    {
        byte[] payload = message.Payload;
        if (payload.Length < 8)
            return false;
        uint count = BitConverter.ToUInt32(payload);
        if (payload.Length != 8 + ((long)count * MemoryRegionDescription.Length) || message.DescriptorCount != count)
            return false;
        var regions = new List<GuestRegion>();
        for (int i = 0; i < count; i++)
        {
            var description = MemoryRegionDescription.Read(payload.AsSpan(8 + (i * MemoryRegionDescription.Length)));
            if (GuestRegion.TryMap(description, message.Descriptors[i]) is not { } region)
            {
                BackEnd.AddViolation($"SET_MEM_TABLE: region {i}, {description}, cannot be mapped: {strerror(errno)}");
                regions.ForEach(mapped => mapped.Close());
                return false;
            }
            regions.Add(region);
        }
        ReplaceMemory(regions);
        return true;
    }

    private bool AddMemoryRegion(Message message)
    {
        if (message.Payload.Length != 8 + MemoryRegionDescription.Length || message.DescriptorCount != 1)
            return false;
        var description = MemoryRegionDescription.Read(message.Payload.AsSpan(8));
        var regions = new List<GuestRegion>(Memory.Regions);
        foreach (GuestRegion other in regions)
        {
            if (description.GuestAddress < other.Description.GuestAddress + other.Description.Size && other.Description.GuestAddress < description.GuestAddress + description.Size)
                BackEnd.AddViolation($"ADD_MEM_REG: {description} overlaps {other.Description}");
        }
        if ((ulong)regions.Count >= BackEnd.MaxMemSlots)
            BackEnd.AddViolation($"ADD_MEM_REG: more than {BackEnd.MaxMemSlots} regions");
        if (GuestRegion.TryMap(description, message.Descriptors[0]) is not { } region)
        {
            BackEnd.AddViolation($"ADD_MEM_REG: {description} cannot be mapped: {strerror(errno)}");
            return false;
        }
        regions.Add(region);
        ReplaceMemory(regions);
        return true;
    }

    private bool RemoveMemoryRegion(Message message)
    {
        if (message.Payload.Length != 8 + MemoryRegionDescription.Length)
            return false;
        var description = MemoryRegionDescription.Read(message.Payload.AsSpan(8));
        var regions = new List<GuestRegion>(Memory.Regions);
        int found = regions.FindIndex(region => region.Description.GuestAddress == description.GuestAddress
            && region.Description.UserAddress == description.UserAddress && region.Description.Size == description.Size);
        if (found < 0)
        {
            BackEnd.AddViolation($"REM_MEM_REG: {description} is not there");
            return false;
        }
        regions.RemoveAt(found);
        ReplaceMemory(regions);
        return true;
    }

    private bool SetChannel(Message message)
    {
        if (message.TakeDescriptor() is not { } file)
            return false;
        BackEndChannel? old = Interlocked.Exchange(ref _channel, new BackEndChannel(this, new UnixStream(file)));
        old?.Connection.Shutdown();
        old?.Dispose();
        return true;
    }

    private Reply GetConfig(Message message)
    {
        byte[] config = BackEnd.Config;
        if (message.Payload.Length < ConfigHeader.Length)
            return new Reply(message.Request, []);
        var header = ConfigHeader.Read(message.Payload);
        if (header.Offset > config.Length || header.Size > config.Length - header.Offset || header.Size == 0)
            return new Reply(message.Request, []);
        return new Reply(message.Request, header.ToBytes(config.AsSpan((int)header.Offset, (int)header.Size)));
    }

    private bool SetConfig(Message message)
    {
        if (message.Payload.Length < ConfigHeader.Length)
            return false;
        var header = ConfigHeader.Read(message.Payload);
        ReadOnlySpan<byte> data = message.Payload.AsSpan(ConfigHeader.Length);
        if (header.Size != data.Length || !BackEnd.TryWriteConfig((int)Math.Min(header.Offset, int.MaxValue), data))
            return false;
        BackEnd.Device.ConfigWritten(this, (int)header.Offset, data.Length);
        return true;
    }

    private Reply GetVringBase(Message message)
    {
        var state = message.Payload.Length == VringState.Length ? VringState.Read(message.Payload) : default;
        ushort index = state.Index < _vrings.Length ? _vrings[state.Index].Stop() : (ushort)0;
        return new Reply(message.Request, new VringState(state.Index, index).ToBytes());
    }

    private bool SetVringAddress(byte[] payload)
    {
        if (payload.Length != VringAddress.Length)
            return false;
        var address = VringAddress.Read(payload);
        if (address.Index >= _vrings.Length)
            return false;
        Vring vring = _vrings[address.Index];
        vring.Address = address;
        // Real back-ends translate at once, so the memory has to be there.
        if (vring.CanTranslate())
            return true;
        BackEnd.AddViolation($"SET_VRING_ADDR: {address} is in no region of memory");
        return false;
    }

    private bool TryVring(Message message, Action<Vring, VringState> action)
    {
        if (message.Payload.Length != VringState.Length)
            return false;
        var state = VringState.Read(message.Payload);
        if (state.Index >= _vrings.Length)
            return false;
        action(_vrings[state.Index], state);
        return true;
    }

    private bool SetVringDescriptor(Message message, Action<Vring, FileDescriptor?> action)
    {
        if (message.Payload.Length != U64.Length)
            return false;
        ulong value = U64.Read(message.Payload);
        int index = (int)(value & 0xFF);
        bool none = (value & VringNoDescriptor) != 0;
        if (index >= _vrings.Length || none == (message.DescriptorCount > 0))
            return false;
        action(_vrings[index], message.TakeDescriptor());
        return true;
    }

    private bool SetLog(Message message)
    {
        if (message.Payload.Length != LogDescription.Length || message.DescriptorCount != 1)
            return false;
        DirtyLog? log = DirtyLog.TryMap(LogDescription.Read(message.Payload), message.Descriptors[0]);
        if (log == null)
            return false;
        Interlocked.Exchange(ref _log, log)?.Close();
        return true;
    }

    private static Reply GetInflight(Message message)
    {
        if (message.Payload.Length is not (InflightDescription.Length or InflightDescription.PackedLength))
            return new Reply(message.Request, default(InflightDescription).ToBytes());
        var asked = InflightDescription.Read(message.Payload);
        ulong size = InflightRegion.SizeOf(asked.NumQueues, asked.QueueSize);
        int fd = memfd_create("inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        var reply = new Reply(message.Request, (asked with { MmapSize = size, MmapOffset = 0 }).ToBytes());
        if (fd < 0 || ftruncate(fd, (long)size) != 0)
            return new Reply(message.Request, default(InflightDescription).ToBytes());
        reply.Descriptors.Add(new FileDescriptor(fd));
        return reply;
    }

    private bool SetInflight(Message message)
    {
        if (message.Payload.Length is not (InflightDescription.Length or InflightDescription.PackedLength) || message.DescriptorCount != 1)
            return false;
        InflightRegion? region = InflightRegion.TryMap(InflightDescription.Read(message.Payload), message.Descriptors[0]);
        if (region == null)
            return false;
        Inflight?.Close();
        Inflight = region;
        return true;
    }

    private bool ResetDevice()
    {
        foreach (Vring vring in _vrings)
        {
            vring.Stop();
            vring.SetEnabled(false);
            vring.Base = 0;
        }
        BackEnd.Device.Reset(this);
        return true;
    }

    private ulong SetDeviceState(Message message)
    {
        if (message.Payload.Length != DeviceStateTransfer.Length || message.TakeDescriptor() is not { } pipe)
            return 1;
        bool save = DeviceStateTransfer.Read(message.Payload).Direction == StateTransferSave;
        if (Array.Exists(_vrings, vring => vring.IsStarted))
            BackEnd.AddViolation("SET_DEVICE_STATE_FD: a ring is not stopped");
        // In a thread: the front-end need not read or write before it has our reply.
        _stateThread = new Thread(() => Volatile.Write(ref _stateResult, save ? Save(pipe) : Load(pipe))) { IsBackground = true, Name = "state" };
        _stateThread.Start();
        return StateNoDescriptor;
    }

    private ulong Save(FileDescriptor pipe)
    {
        byte[] state = BackEnd.StateToSave ?? BackEnd.Device.SaveState();
        using (pipe)
        {
            fixed (byte* start = state)
            {
                int done = 0;
                while (done < state.Length)
                {
                    nint result = write(pipe.Number, start + done, (nuint)(state.Length - done));
                    if (result < 0 && errno == EINTR)
                        continue;
                    if (result <= 0)
                        return 1;
                    done += (int)result;
                }
            }
        }
        return 0;
    }

    private ulong Load(FileDescriptor pipe)
    {
        using var state = new MemoryStream();
        byte* buffer = stackalloc byte[4096];
        using (pipe)
        {
            while (true)
            {
                nint result = read(pipe.Number, buffer, 4096);
                if (result < 0 && errno == EINTR)
                    continue;
                if (result < 0 || state.Length > MaximumState)
                    return 1;
                if (result == 0)
                    break;
                state.Write(new ReadOnlySpan<byte>(buffer, (int)result));
            }
        }
        BackEnd.LoadedState = state.ToArray();
        return BackEnd.Device.LoadState(BackEnd.LoadedState) ? 0u : 1u;
    }
}
