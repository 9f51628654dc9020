using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Tests.Configuration;

/// <summary>Options of devices that other programs serve.</summary>
public sealed class BackEndConfigTests
{
    [Fact]
    public void Memory_is_shared_with_back_ends_without_being_asked_for()
    {
        Assert.True(new VmConfigBuilder().AddOption(FsConfig.Option, "tag=t,socket=/s").Build().Memory.Shared);
        Assert.False(new VmConfigBuilder().Build().Memory.Shared);
        VmException(b => b.AddOption(FsConfig.Option, "tag=t,socket=/s").AddOption(MemoryConfig.Option, "shared=off"), "need the guest's memory");
    }

    [Fact]
    public void A_generic_device_knows_the_usual_shapes()
    {
        VhostUserConfig rng = Assert.Single(new VmConfigBuilder().AddOption(VhostUserConfig.Option, "type=rng,socket=/s").Build().VhostUser);
        Assert.Equal((4, 0), (rng.Type, rng.ConfigSize));
        Assert.Equal([64], rng.QueueSizes);
        VhostUserConfig other = Assert.Single(new VmConfigBuilder()
            .AddOption(VhostUserConfig.Option, "type=42,queue_sizes=[16,32],config_size=7,socket=/s,server=on,reconnect=off,quirk=shmem-bit-21,shmem_mappings=9").Build().VhostUser);
        Assert.Equal((42, 7), (other.Type, other.ConfigSize));
        Assert.Equal([16, 32], other.QueueSizes);
        Assert.Equal(new BackEndOptions("/s", null, true, null, true, 9), other.BackEnd);
    }

    [Fact]
    public void A_network_card_takes_the_name_that_cloud_hypervisor_has_for_the_direction() =>
        Assert.True(new VmConfigBuilder().AddOption(NetConfig.Option, "vhost_user=on,socket=/s,vhost_mode=server").Build().Net[0].BackEnd!.Server);

    [Fact]
    public void A_graphics_card_has_a_display()
    {
        GpuConfig usual = Assert.Single(new VmConfigBuilder().AddOption(GpuConfig.Option, "socket=/s").Build().Gpu);
        Assert.Equal((1024, 768, null, 256), (usual.Width, usual.Height, usual.Screenshot, usual.QueueSize));
        VmConfig config = new VmConfigBuilder().AddOption(GpuConfig.Option, "width=1280,height=720,screenshot=/p,queue_size=64,socket=/s,id=card").AddOption(GpuConfig.Option, "exec=\"gpu {socket}\"").Build();
        Assert.Equal((2, true), (config.Gpu.Count, config.Memory.Shared));
        Assert.Equal((1280, 720, "/p", 64, "card"), (config.Gpu[0].Width, config.Gpu[0].Height, config.Gpu[0].Screenshot, config.Gpu[0].QueueSize, config.Gpu[0].Virtio.Id));
    }

    [Fact]
    public void A_screenshot_does_not_write_over_something_else()
    {
        VmConfig config = new VmConfigBuilder().AddOption(PayloadConfig.KernelOption, "/k").AddOption(GpuConfig.Option, "socket=/s,screenshot=/p")
            .AddOption(GpuConfig.Option, "socket=/t,screenshot=/p").Build();
        Assert.Contains("both have '/p'", Assert.Throws<VmmException>(config.CheckRunnable).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_network_card_may_have_several_pairs_of_queues()
    {
        Assert.Equal(2, new VmConfigBuilder().AddOption(NetConfig.Option, "vhost_user=on,socket=/s").Build().Net[0].NumQueues);
        Assert.Equal(8, new VmConfigBuilder().AddOption(NetConfig.Option, "vhost_user=on,socket=/s,num_queues=8").Build().Net[0].NumQueues);
    }

    [Theory]
    [InlineData("--gpu", "width=640", "there is no back-end")]
    [InlineData("--gpu", "width=644,socket=/s", "is no multiple of 8, as drivers want it; write 640")]
    [InlineData("--gpu", "width=312,socket=/s", "write a number from 320 to 4088")]
    [InlineData("--gpu", "height=2401,socket=/s", "write a number from 200 to 2400")]
    [InlineData("--gpu", "screenshot=,socket=/s", "'screenshot' has no value")]
    [InlineData("--gpu", "widht=640,socket=/s", "Did you mean width?")]
    [InlineData("--gpu", "queue_size=3,socket=/s", "queue_size=3")]
    [InlineData("--net", "vhost_user=on,socket=/s,num_queues=3", "is odd")]
    [InlineData("--net", "vhost_user=on,socket=/s,num_queues=130", "write a number from 2 to 128")]
    [InlineData("--fs", "tag=t", "there is no back-end")]
    [InlineData("--fs", "socket=/s,tag=1234567890123456789012345678901234567", "is no tag")]
    [InlineData("--fs", "tag=t,exec=\"virtiofsd\"", "does not say where its socket goes")]
    [InlineData("--fs", "tag=t,exec=\"a {fd}\",socket=/s", "makes its own socket")]
    [InlineData("--fs", "tag=t,socket=/s,quirk=x", "is not known")]
    [InlineData("--fs", "tag=t,socket=/s,reconnect=0", "out of range")]
    [InlineData("--vsock", "socket=/s", "vhost_user=on")]
    [InlineData("--disk", "vhost_user=on,socket=/s,path=/x", "means nothing with vhost_user=on")]
    [InlineData("--disk", "path=/x,socket=/s", "means nothing without vhost_user=on")]
    [InlineData("--net", "vhost_user=on,socket=/s,tap=t", "means nothing with vhost_user=on")]
    [InlineData("--vhost-user", "socket=/s", "there is no type")]
    [InlineData("--vhost-user", "type=fz,socket=/s", "Did you mean fs?")]
    [InlineData("--vhost-user", "type=42,socket=/s", "write queue_sizes=")]
    [InlineData("--vhost-user", "type=42,queue_sizes=[3],socket=/s", "powers of two")]
    [InlineData("--vhost-user", "type=64,socket=/s", "is no device type")]
    public void Each_mistake_is_named(string option, string text, string expected) =>
        VmException(b => b.AddOption(VmConfig.Options.Single(o => o.Name == option), text), expected);

    private static void VmException(Func<VmConfigBuilder, VmConfigBuilder> add, string expected) =>
        Assert.Contains(expected, Assert.Throws<VmmException>(() => add(new VmConfigBuilder()).Build()).Message, StringComparison.Ordinal);
}
