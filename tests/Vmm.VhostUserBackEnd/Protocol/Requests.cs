namespace Vmm.VhostUserBackEnd.Protocol;

/// <summary>What a front-end asks on the main channel, under the names of vhost-user.rst without their prefix.</summary>
public enum FrontEndRequest : uint
{
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    RESET_OWNER = 4,
    SET_MEM_TABLE = 5,
    SET_LOG_BASE = 6,
    SET_LOG_FD = 7,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    GET_VRING_BASE = 11,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    SET_VRING_ERR = 14,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18,
    SEND_RARP = 19,
    NET_SET_MTU = 20,
    SET_BACKEND_REQ_FD = 21,
    IOTLB_MSG = 22,
    SET_VRING_ENDIAN = 23,
    GET_CONFIG = 24,
    SET_CONFIG = 25,
    CREATE_CRYPTO_SESSION = 26,
    CLOSE_CRYPTO_SESSION = 27,
    POSTCOPY_ADVISE = 28,
    POSTCOPY_LISTEN = 29,
    POSTCOPY_END = 30,
    GET_INFLIGHT_FD = 31,
    SET_INFLIGHT_FD = 32,
    GPU_SET_SOCKET = 33,
    RESET_DEVICE = 34,
    VRING_KICK = 35,
    GET_MAX_MEM_SLOTS = 36,
    ADD_MEM_REG = 37,
    REM_MEM_REG = 38,
    SET_STATUS = 39,
    GET_STATUS = 40,
    GET_SHARED_OBJECT = 41,
    SET_DEVICE_STATE_FD = 42,
    CHECK_DEVICE_STATE = 43,
    GET_SHMEM_CONFIG = 44,
}

/// <summary>What a back-end asks on the channel that SET_BACKEND_REQ_FD gave it.</summary>
public enum BackEndRequest : uint
{
    IOTLB_MSG = 1,
    CONFIG_CHANGE_MSG = 2,
    VRING_HOST_NOTIFIER_MSG = 3,
    VRING_CALL = 4,
    VRING_ERR = 5,
    SHARED_OBJECT_ADD = 6,
    SHARED_OBJECT_REMOVE = 7,
    SHARED_OBJECT_LOOKUP = 8,
    SHMEM_MAP = 9,
    SHMEM_UNMAP = 10,
}

/// <summary>The flags of a message's header.</summary>
public static class MessageFlags
{
    /// <summary>The only version there is, in bits 0 and 1.</summary>
    public const uint Version = 1;

    public const uint VersionMask = 3;

    public const uint Reply = 1 << 2;

    public const uint NeedReply = 1 << 3;
}

/// <summary>VHOST_USER_PROTOCOL_F_*, as masks.</summary>
[Flags]
public enum ProtocolFeatures : ulong
{
    None = 0,
    MQ = 1 << 0,
    LOG_SHMFD = 1 << 1,
    RARP = 1 << 2,
    REPLY_ACK = 1 << 3,
    NET_MTU = 1 << 4,
    BACKEND_REQ = 1 << 5,
    CROSS_ENDIAN = 1 << 6,
    CRYPTO_SESSION = 1 << 7,
    PAGEFAULT = 1 << 8,
    CONFIG = 1 << 9,
    BACKEND_SEND_FD = 1 << 10,
    HOST_NOTIFIER = 1 << 11,
    INFLIGHT_SHMFD = 1 << 12,
    RESET_DEVICE = 1 << 13,
    INBAND_NOTIFICATIONS = 1 << 14,
    CONFIGURE_MEM_SLOTS = 1 << 15,
    STATUS = 1 << 16,
    XEN_MMAP = 1 << 17,
    SHARED_OBJECT = 1 << 18,
    DEVICE_STATE = 1 << 19,
    GET_VRING_BASE_INFLIGHT = 1 << 20,
    GPA_ADDRESSES = 1 << 21,
    SHMEM = 1 << 22,
}

/// <summary>Feature bits of devices that the back-end itself needs to know, as masks (VIRTIO 1.3 §6, vhost-user.rst).</summary>
public static class DeviceFeatures
{
    /// <summary>VHOST_F_LOG_ALL: writes to guest memory are logged.</summary>
    public const ulong LogAll = 1UL << 26;

    public const ulong IndirectDescriptors = 1UL << 28;

    public const ulong EventIndex = 1UL << 29;

    /// <summary>VHOST_USER_F_PROTOCOL_FEATURES.</summary>
    public const ulong ProtocolFeatures = 1UL << 30;

    public const ulong Version1 = 1UL << 32;

    /// <summary>VIRTIO_F_RING_PACKED; not served here.</summary>
    public const ulong RingPacked = 1UL << 34;
}
