using Vmm.VhostUserBackEnd.Protocol;

namespace Vmm.VhostUserBackEnd.Tests;

/// <summary>Every layout of vhost-user.rst as bytes, written out by hand.</summary>
public sealed class LayoutTests
{
    public static TheoryData<string, string, string> Layouts => new()
    {
        // Numbers are chosen so that each byte of the message is a different one.
        { "header", "0b000000 05000000 08000000", Hex(BackEndConnection.Encode(11, 5, 8, [])) },
        { "header and payload", "01000000 05000000 08000000 8877665544332211", Hex(BackEndConnection.Encode(1, 5, U64.ToBytes(0x1122334455667788))) },
        { "u64", "8877665544332211", Hex(U64.ToBytes(0x1122334455667788)) },
        { "vring_state", "04030201 08070605", Hex(new VringState(0x01020304, 0x05060708).ToBytes()) },
        {
            "vring_addr", "04030201 08070605 1817161514131211 2827262524232221 3837363534333231 4847464544434241",
            Hex(new VringAddress(0x01020304, 0x05060708, 0x1112131415161718, 0x2122232425262728, 0x3132333435363738, 0x4142434445464748).ToBytes())
        },
        { "mem_reg", "0000000000000000 1817161514131211 2827262524232221 3837363534333231 4847464544434241", Hex(Region.ToSingleBytes()) },
        {
            "mem_table", "02000000 00000000 1817161514131211 2827262524232221 3837363534333231 4847464544434241"
                + "0100000000000000 0200000000000000 0300000000000000 0400000000000000",
            Hex(MemoryRegionDescription.ToTableBytes(Region, new MemoryRegionDescription(1, 2, 3, 4)))
        },
        { "log", "1817161514131211 2827262524232221", Hex(new LogDescription(0x1112131415161718, 0x2122232425262728).ToBytes()) },
        { "config", "04030201 03000000 0c0b0a09 aabbcc", Hex(new ConfigHeader(0x01020304, 3, 0x090A0B0C).ToBytes([0xAA, 0xBB, 0xCC])) },
        {
            "inflight", "1817161514131211 2827262524232221 3231 4241 00000000",
            Hex(new InflightDescription(0x1112131415161718, 0x2122232425262728, 0x3132, 0x4142).ToBytes())
        },
        { "state", "01000000 00000000", Hex(new DeviceStateTransfer(1, 0).ToBytes()) },
        {
            "mmap", "ab00000000000000 1817161514131211 2827262524232221 3837363534333231 0100000000000000",
            Hex(new ShmemMapping(0xAB, 0x1112131415161718, 0x2122232425262728, 0x3132333435363738, ShmemMapping.ReadWrite).ToBytes())
        },
    };

    private static MemoryRegionDescription Region => new(0x1112131415161718, 0x2122232425262728, 0x3132333435363738, 0x4142434445464748);

    [Theory]
    [MemberData(nameof(Layouts))]
    public void A_payload_has_the_bytes_of_the_specification(string name, string expected, string actual)
    {
        Assert.NotEmpty(name);
        Assert.Equal(expected.Replace(" ", "", StringComparison.Ordinal), actual);
    }

    [Fact]
    public void What_is_written_is_read()
    {
        var address = new VringAddress(1, 2, 3, 4, 5, 6);
        Assert.Equal(address, VringAddress.Read(address.ToBytes()));
        Assert.Equal(Region, MemoryRegionDescription.Read(Region.ToSingleBytes().AsSpan(8)));
        var mapping = new ShmemMapping(1, 2, 3, 4, 5);
        Assert.Equal(mapping, ShmemMapping.Read(mapping.ToBytes()));
        var inflight = new InflightDescription(1, 2, 3, 4);
        Assert.Equal(inflight, InflightDescription.Read(inflight.ToBytes()));
        Assert.Equal(new VringState(1, 2), VringState.Read(new VringState(1, 2).ToBytes()));
        Assert.Equal(new LogDescription(1, 2), LogDescription.Read(new LogDescription(1, 2).ToBytes()));
        Assert.Equal(new ConfigHeader(1, 2, 3), ConfigHeader.Read(new ConfigHeader(1, 2, 3).ToBytes([7, 7])));
        Assert.Equal(new DeviceStateTransfer(1, 2), DeviceStateTransfer.Read(new DeviceStateTransfer(1, 2).ToBytes()));
    }

    [Fact]
    public void The_shared_memory_configuration_has_a_place_for_each_identifier()
    {
        byte[] data = ShmemConfig.ToBytes([0, 0x1000, 0, 0x2000]);
        Assert.Equal(2056, data.Length);
        Assert.Equal("02000000" + "00000000" + "0000000000000000" + "0010000000000000" + "0000000000000000" + "0020000000000000", Hex(data.AsSpan(0, 40).ToArray()));
        Assert.True(data.AsSpan(40).IndexOfAnyExcept((byte)0) < 0);
        Assert.Equal(300u, BitConverter.ToUInt32(ShmemConfig.ToBytes([], count: 300)));
    }

    [Fact]
    public void Numbers_of_requests_and_features_are_those_of_the_specification()
    {
        Assert.Equal(44u, (uint)FrontEndRequest.GET_SHMEM_CONFIG);
        Assert.Equal(42u, (uint)FrontEndRequest.SET_DEVICE_STATE_FD);
        Assert.Equal(36u, (uint)FrontEndRequest.GET_MAX_MEM_SLOTS);
        Assert.Equal(31u, (uint)FrontEndRequest.GET_INFLIGHT_FD);
        Assert.Equal(24u, (uint)FrontEndRequest.GET_CONFIG);
        Assert.Equal(21u, (uint)FrontEndRequest.SET_BACKEND_REQ_FD);
        Assert.Equal((9u, 10u), ((uint)BackEndRequest.SHMEM_MAP, (uint)BackEndRequest.SHMEM_UNMAP));
        Assert.Equal(1ul << 22, (ulong)ProtocolFeatures.SHMEM);
        Assert.Equal(1ul << 19, (ulong)ProtocolFeatures.DEVICE_STATE);
        Assert.Equal(1ul << 15, (ulong)ProtocolFeatures.CONFIGURE_MEM_SLOTS);
        Assert.Equal(1ul << 12, (ulong)ProtocolFeatures.INFLIGHT_SHMFD);
    }

    private static string Hex(byte[] data) => Convert.ToHexStringLower(data);
}
