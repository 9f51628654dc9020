namespace Vmm.Virtio.VhostUser.Protocol;

/// <summary>VHOST_USER_PROTOCOL_F_*, as masks. Bits that are not here are not accepted.</summary>
internal static class ProtocolFeatures
{
    /// <summary>Several queues; GET_QUEUE_NUM.</summary>
    public const ulong MultiQueue = 1UL << 0;

    /// <summary>The dirty log is shared memory; SET_LOG_BASE has a descriptor and a reply.</summary>
    public const ulong LogSharedMemory = 1UL << 1;

    /// <summary>SEND_RARP.</summary>
    public const ulong Rarp = 1UL << 2;

    /// <summary>Any request can ask for an acknowledgement.</summary>
    public const ulong ReplyAck = 1UL << 3;

    /// <summary>NET_SET_MTU.</summary>
    public const ulong NetMtu = 1UL << 4;

    /// <summary>The back-end has a channel for requests of its own.</summary>
    public const ulong BackEndRequests = 1UL << 5;

    /// <summary>GET_CONFIG, SET_CONFIG, CONFIG_CHANGE_MSG.</summary>
    public const ulong Config = 1UL << 9;

    /// <summary>Requests of the back-end may carry descriptors.</summary>
    public const ulong BackEndSendFd = 1UL << 10;

    /// <summary>Requests in flight are tracked in memory that outlives the back-end.</summary>
    public const ulong InflightSharedMemory = 1UL << 12;

    /// <summary>RESET_DEVICE.</summary>
    public const ulong ResetDevice = 1UL << 13;

    /// <summary>ADD_MEM_REG, REM_MEM_REG, GET_MAX_MEM_SLOTS.</summary>
    public const ulong ConfigureMemSlots = 1UL << 15;

    /// <summary>SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE.</summary>
    public const ulong DeviceState = 1UL << 19;

    /// <summary>Bit 21: GPA_ADDRESSES; some back-ends of 2025 meant <see cref="SharedMemory"/> by it.</summary>
    public const ulong GuestAddresses = 1UL << 21;

    /// <summary>GET_SHMEM_CONFIG, SHMEM_MAP, SHMEM_UNMAP.</summary>
    public const ulong SharedMemory = 1UL << 22;

    /// <summary>What is accepted from any back-end.</summary>
    public const ulong Implemented = MultiQueue | LogSharedMemory | ReplyAck | BackEndRequests | Config | BackEndSendFd | InflightSharedMemory
        | ResetDevice | ConfigureMemSlots | DeviceState | SharedMemory;

    /// <summary>What is accepted from the back-end of a network card besides.</summary>
    public const ulong Network = Rarp | NetMtu;

    private static readonly (ulong Bit, string Name)[] s_names =
    [
        (MultiQueue, "MQ"), (LogSharedMemory, "LOG_SHMFD"), (Rarp, "RARP"), (ReplyAck, "REPLY_ACK"), (NetMtu, "MTU"),
        (BackEndRequests, "BACKEND_REQ"), (Config, "CONFIG"), (BackEndSendFd, "BACKEND_SEND_FD"), (InflightSharedMemory, "INFLIGHT_SHMFD"),
        (ResetDevice, "RESET_DEVICE"), (ConfigureMemSlots, "CONFIGURE_MEM_SLOTS"), (DeviceState, "DEVICE_STATE"),
        (GuestAddresses, "GPA_ADDRESSES"), (SharedMemory, "SHMEM"),
    ];

    /// <summary>Names of the bits that are set, as the specification has them.</summary>
    public static string Show(ulong features)
    {
        var names = new List<string>();
        foreach ((ulong bit, string name) in s_names)
        {
            if ((features & bit) == 0)
                continue;
            names.Add(name);
            features &= ~bit;
        }
        if (features != 0)
            names.Add($"0x{features:x}");
        return names.Count == 0 ? "none" : string.Join(' ', names);
    }
}
