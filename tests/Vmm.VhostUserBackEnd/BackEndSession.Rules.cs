using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;
using static Vmm.VhostUserBackEnd.Protocol.FrontEndRequest;

namespace Vmm.VhostUserBackEnd;

public sealed partial class BackEndSession
{
    private bool _offeredProtocolFeatures;
    private bool _ownerSet;
    private bool _protocolFeaturesSet;
    private bool _featuresSet;

    /// <summary>Whether a request is answered without asking for it.</summary>
    private bool HasOwnReply(FrontEndRequest request) => request switch
    {
        GET_FEATURES or GET_PROTOCOL_FEATURES or GET_QUEUE_NUM or GET_MAX_MEM_SLOTS or GET_SHMEM_CONFIG or GET_CONFIG or GET_VRING_BASE or GET_INFLIGHT_FD
            or SET_DEVICE_STATE_FD or CHECK_DEVICE_STATE or GET_STATUS or POSTCOPY_END or POSTCOPY_ADVISE or GET_SHARED_OBJECT or IOTLB_MSG => true,
        SET_LOG_BASE => HasProtocolFeature(ProtocolFeatures.LOG_SHMFD),
        _ => false,
    };

    private bool WantsAck(Message message) => message.NeedsReply && HasProtocolFeature(ProtocolFeatures.REPLY_ACK);

    /// <summary>Writes down what a request has wrong by vhost-user.rst. It is served all the same, as far as it can be.</summary>
    private void Check(Message message)
    {
        FrontEndRequest request = message.Request;
        void Wrong(string what) => BackEnd.AddViolation($"{Name(message.Header.Request)}: {what}");

        if (!Enum.IsDefined(request))
        {
            Wrong("there is no such request");
            return;
        }
        if ((message.Header.Flags & ~MessageFlags.NeedReply) != MessageFlags.Version)
            Wrong($"the flags are {message.Header.Flags:x}");
        if (message.NeedsReply && !HasProtocolFeature(ProtocolFeatures.REPLY_ACK))
            Wrong("NEED_REPLY without REPLY_ACK");
        if (Gate(request) is { } gate && !HasProtocolFeature(gate))
            Wrong($"{gate} was not negotiated");
        if (!LengthIsRight(message))
            Wrong($"the payload has {message.Payload.Length} bytes");
        (int least, int most) = Descriptors(message);
        if (message.DescriptorCount < least || message.DescriptorCount > most)
            Wrong($"{message.DescriptorCount} descriptors came");
        CheckOrder(message, Wrong);
    }

    private void CheckOrder(Message message, Action<string> wrong)
    {
        byte[] payload = message.Payload;
        switch (message.Request)
        {
            case GET_FEATURES:
                _offeredProtocolFeatures = (BackEnd.Features & DeviceFeatures.ProtocolFeatures) != 0;
                return;
            case GET_PROTOCOL_FEATURES or SET_PROTOCOL_FEATURES when !_offeredProtocolFeatures:
                wrong("VHOST_USER_F_PROTOCOL_FEATURES was not offered, or not asked for");
                return;
            case SET_PROTOCOL_FEATURES when payload.Length == U64.Length:
                if (_protocolFeaturesSet)
                    wrong("it came a second time");
                _protocolFeaturesSet = true;
                var acked = (ProtocolFeatures)U64.Read(payload);
                if ((acked & ~BackEnd.ProtocolFeatures) != 0)
                    wrong($"{acked & ~BackEnd.ProtocolFeatures} was not offered");
                return;
            case SET_OWNER:
                if (_ownerSet)
                    wrong("it came a second time");
                _ownerSet = true;
                return;
            case SET_FEATURES when payload.Length == U64.Length:
                _featuresSet = true;
                if ((U64.Read(payload) & ~BackEnd.Features) != 0)
                    wrong($"{U64.Read(payload) & ~BackEnd.Features:x} was not offered");
                if (!_ownerSet)
                    wrong("SET_OWNER has not come");
                return;
            case SET_VRING_ENABLE when !HasFeature(DeviceFeatures.ProtocolFeatures):
                wrong("VHOST_USER_F_PROTOCOL_FEATURES was not acknowledged");
                return;
            case SET_VRING_NUM or SET_VRING_BASE or SET_VRING_ADDR or SET_VRING_KICK when !_featuresSet:
                wrong("SET_FEATURES has not come");
                return;
        }
        if (message.Request is SET_VRING_NUM or SET_VRING_BASE or SET_VRING_ENABLE or GET_VRING_BASE or SET_VRING_ADDR && payload.Length >= VringState.Length)
            CheckVring(message.Request, VringState.Read(payload), wrong);
        if (message.Request is SET_VRING_KICK or SET_VRING_CALL or SET_VRING_ERR && payload.Length == U64.Length)
        {
            ulong value = U64.Read(payload);
            if (value >> 9 != 0 || (value & 0xFF) >= (ulong)_vrings.Length)
                wrong($"the payload {value:x} names no queue");
            else if (message.Request == SET_VRING_KICK && _vrings[value & 0xFF].Address == default)
                wrong("SET_VRING_ADDR has not come");
        }
    }

    private void CheckVring(FrontEndRequest request, VringState state, Action<string> wrong)
    {
        if (state.Index >= _vrings.Length)
        {
            wrong($"there is no queue {state.Index}");
            return;
        }
        Vring vring = _vrings[state.Index];
        if (request is SET_VRING_NUM && (state.Num is 0 or > 32768 || (state.Num & (state.Num - 1)) != 0))
            wrong($"a queue cannot have {state.Num} descriptors");
        if (request is SET_VRING_BASE && state.Num > ushort.MaxValue)
            wrong($"{state.Num} is no index of a split ring");
        if (request is SET_VRING_ENABLE && state.Num > 1)
            wrong($"{state.Num} is neither 0 nor 1");
        if (request is SET_VRING_NUM or SET_VRING_BASE && vring.IsStarted)
            wrong($"queue {state.Index} is started");
        if (request is GET_VRING_BASE && !vring.IsStarted)
            wrong($"queue {state.Index} is not started");
    }

    private static ProtocolFeatures? Gate(FrontEndRequest request) => request switch
    {
        GET_QUEUE_NUM => ProtocolFeatures.MQ,
        GET_MAX_MEM_SLOTS or ADD_MEM_REG or REM_MEM_REG => ProtocolFeatures.CONFIGURE_MEM_SLOTS,
        SET_BACKEND_REQ_FD => ProtocolFeatures.BACKEND_REQ,
        GET_CONFIG or SET_CONFIG => ProtocolFeatures.CONFIG,
        GET_INFLIGHT_FD or SET_INFLIGHT_FD => ProtocolFeatures.INFLIGHT_SHMFD,
        SET_LOG_BASE => ProtocolFeatures.LOG_SHMFD,
        RESET_DEVICE => ProtocolFeatures.RESET_DEVICE,
        SET_DEVICE_STATE_FD or CHECK_DEVICE_STATE => ProtocolFeatures.DEVICE_STATE,
        GET_SHMEM_CONFIG => ProtocolFeatures.SHMEM,
        SET_STATUS or GET_STATUS => ProtocolFeatures.STATUS,
        GET_SHARED_OBJECT => ProtocolFeatures.SHARED_OBJECT,
        POSTCOPY_ADVISE or POSTCOPY_LISTEN or POSTCOPY_END => ProtocolFeatures.PAGEFAULT,
        SEND_RARP => ProtocolFeatures.RARP,
        NET_SET_MTU => ProtocolFeatures.NET_MTU,
        SET_VRING_ENDIAN => ProtocolFeatures.CROSS_ENDIAN,
        VRING_KICK => ProtocolFeatures.INBAND_NOTIFICATIONS,
        CREATE_CRYPTO_SESSION or CLOSE_CRYPTO_SESSION => ProtocolFeatures.CRYPTO_SESSION,
        _ => null,
    };

    private static bool LengthIsRight(Message message)
    {
        int length = message.Payload.Length;
        return message.Request switch
        {
            GET_FEATURES or GET_PROTOCOL_FEATURES or SET_OWNER or RESET_OWNER or GET_QUEUE_NUM or GET_MAX_MEM_SLOTS or SET_BACKEND_REQ_FD or GET_SHMEM_CONFIG
                or RESET_DEVICE or GET_STATUS or CHECK_DEVICE_STATE or SET_LOG_FD or POSTCOPY_ADVISE or POSTCOPY_LISTEN or POSTCOPY_END or GPU_SET_SOCKET => length == 0,
            SET_FEATURES or SET_PROTOCOL_FEATURES or SET_VRING_KICK or SET_VRING_CALL or SET_VRING_ERR or SET_STATUS or SEND_RARP or NET_SET_MTU => length == U64.Length,
            SET_VRING_NUM or SET_VRING_BASE or GET_VRING_BASE or SET_VRING_ENABLE or SET_VRING_ENDIAN or VRING_KICK => length == VringState.Length,
            SET_VRING_ADDR => length == VringAddress.Length,
            SET_MEM_TABLE => length >= 8 && BitConverter.ToUInt32(message.Payload) <= 8
                && length == 8 + ((int)BitConverter.ToUInt32(message.Payload) * MemoryRegionDescription.Length),
            ADD_MEM_REG or REM_MEM_REG => length == 8 + MemoryRegionDescription.Length,
            SET_LOG_BASE => length == LogDescription.Length,
            GET_CONFIG or SET_CONFIG => length >= ConfigHeader.Length && ConfigHeader.Read(message.Payload) is { Size: <= 256 } header
                && length == ConfigHeader.Length + (int)header.Size,
            GET_INFLIGHT_FD or SET_INFLIGHT_FD => length is InflightDescription.Length or InflightDescription.PackedLength,
            SET_DEVICE_STATE_FD => length == DeviceStateTransfer.Length,
            GET_SHARED_OBJECT => length == 16,
            IOTLB_MSG => length == 32,
            _ => true,
        };
    }

    private static (int Least, int Most) Descriptors(Message message) => message.Request switch
    {
        SET_MEM_TABLE when message.Payload.Length >= 8 => ((int)Math.Min(8, BitConverter.ToUInt32(message.Payload)), (int)Math.Min(8, BitConverter.ToUInt32(message.Payload))),
        ADD_MEM_REG or SET_BACKEND_REQ_FD or SET_INFLIGHT_FD or SET_LOG_BASE or SET_LOG_FD or SET_DEVICE_STATE_FD or GPU_SET_SOCKET => (1, 1),
        SET_VRING_KICK or SET_VRING_CALL or SET_VRING_ERR when message.Payload.Length == U64.Length => (U64.Read(message.Payload) & VringNoDescriptor) != 0 ? (0, 0) : (1, 1),
        _ => (0, 0),
    };
}
