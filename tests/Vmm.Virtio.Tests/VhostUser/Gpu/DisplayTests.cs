using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd;
using Vmm.Virtio.VhostUser.Gpu;

namespace Vmm.Virtio.Tests.VhostUser.Gpu;

/// <summary>Each message of vhost-user-gpu by its bytes, and what comes of those that are wrong.</summary>
public sealed class DisplayTests
{
    [Fact]
    public void Protocol_features()
    {
        using var fixture = new DisplayFixture();
        Assert.Equal("01000000" + "04000000" + "08000000" + "0300000000000000", Ask(fixture, "010000000000000000000000"));
        Send(fixture, "02000000" + "00000000" + "08000000" + "0300000000000000");
        fixture.Settle();
        Send(fixture, "02000000" + "00000000" + "08000000" + "0400000000000000");
        fixture.AssertBroken("which were not offered");
    }

    [Fact]
    public void Display_information()
    {
        using var fixture = new DisplayFixture(settings => settings with { Width = 1280, Height = 720 });
        string answer = Ask(fixture, "03000000" + "00000000" + "00000000");
        // virtio_gpu_resp_display_info: the header with VIRTIO_GPU_RESP_OK_DISPLAY_INFO, then x, y, width, height, enabled, flags of the first of 16.
        Assert.Equal("03000000" + "04000000" + "98010000" + "01110000" + new string('0', 40) + "00000000" + "00000000" + "00050000" + "d0020000" + "01000000" + "00000000", answer[..120]);
        Assert.Equal(new string('0', 15 * 48), answer[120..]);
    }

    [Fact]
    public void Edid_of_the_only_display()
    {
        using var fixture = new DisplayFixture(settings => settings with { Width = 1280, Height = 720 });
        byte[] edid = new byte[Edid.Length];
        Edid.Write(edid, 1280, 720);
        Assert.Equal(
            "0b000000" + "04000000" + "20040000" + "04110000" + new string('0', 40) + "80000000" + "00000000" + Convert.ToHexStringLower(edid) + new string('0', 2 * (1024 - 128)),
            Ask(fixture, "0b000000" + "00000000" + "04000000" + "00000000"));
    }

    [Fact]
    public void Edid_of_a_display_that_there_is_not_is_an_error_for_the_guest()
    {
        using var fixture = new DisplayFixture();
        Assert.Equal("0b000000" + "04000000" + "20040000" + "02120000" + new string('0', 2 * (1056 - 4)), Ask(fixture, "0b000000" + "00000000" + "04000000" + "01000000"));
    }

    [Fact]
    public void A_picture()
    {
        using var fixture = new DisplayFixture(screenshot: true);
        Send(fixture, "07000000" + "00000000" + "0c000000" + "00000000" + "03000000" + "02000000");
        // Two by one pixels at 1, 1: blue, green, red, and a byte of nothing each. The flags of this one are undefined.
        Send(fixture, "08000000" + "efbeadde" + "1c000000" + "00000000" + "01000000" + "01000000" + "02000000" + "01000000" + "332211ff" + "665544aa");
        fixture.Settle();
        Assert.Equal((1, 1, 8, 3, 2), (fixture.Counters.Scanouts, fixture.Counters.Updates, fixture.Counters.UpdateBytes, fixture.Counters.Width, fixture.Counters.Height));
        (int width, int height, byte[] pixels) = fixture.WaitForScreenshot(_ => true);
        Assert.Equal((3, 2), (width, height));
        Assert.Equal("000000" + "000000" + "000000" + "000000" + "112233" + "445566", Convert.ToHexStringLower(pixels));
    }

    [Fact]
    public void Cursors()
    {
        using var fixture = new DisplayFixture();
        // A guest may name any display.
        Send(fixture, "04000000" + "00000000" + "0c000000" + "ffffffff" + "05000000" + "06000000");
        Send(fixture, "05000000" + "00000000" + "0c000000" + "00000000" + "05000000" + "06000000");
        Send(fixture, "06000000" + "00000000" + "14400000" + "00000000" + "05000000" + "06000000" + "01000000" + "02000000" + new string('1', 2 * 64 * 64 * 4));
        fixture.Settle();
        Assert.Equal(3, fixture.Counters.Cursors);
        Assert.Equal(4, fixture.Counters.Messages);
    }

    [Theory]
    [InlineData("09000000", "28000000", "")]
    [InlineData("0c000000", "30000000", "0102030405060708")]
    public void Dma_bufs_are_closed_and_their_updates_answered(string request, string size, string modifier)
    {
        using var fixture = new DisplayFixture(screenshot: true);
        // The end of a pipe tells when the other one has been closed by all.
        (FileDescriptor read, FileDescriptor write) = Pipe();
        using (read)
        {
            using (write)
                Send(fixture, request + "00000000" + size + "00000000" + "00000000" + "00000000" + "40010000" + "c8000000" + "40010000" + "c8000000" + "00050000" + "00000000" + "58523234" + modifier, write.Number);
            Assert.Equal("0a000000" + "04000000" + "00000000", Ask(fixture, "0a000000" + "00000000" + "14000000" + "00000000" + "00000000" + "00000000" + "40010000" + "c8000000"));
            AssertAtEnd(read);
        }
        Assert.Equal((1, 320, 200, 1, 1), (fixture.Counters.Dmabufs, fixture.Counters.Width, fixture.Counters.Height, fixture.Counters.Updates, fixture.Counters.Dropped));
        // Off: without a descriptor.
        Send(fixture, request + "00000000" + size + new string('0', 80) + modifier);
        fixture.Settle();
        Assert.Equal((1, 0), (fixture.Counters.Dmabufs, fixture.Counters.Width));
        Assert.False(File.Exists(fixture.Screenshot));
    }

    [Theory]
    [InlineData("00000000" + "00000000" + "00000000", "request 0, which is not known")]
    [InlineData("0d000000" + "00000000" + "00000000", "request 13, which is not known")]
    [InlineData("03000000" + "00000000" + "01000000" + "00", "GetDisplayInfo has 1 bytes, and 0 are right")]
    [InlineData("07000000" + "00000000" + "ffffffff", "Scanout has 4294967295 bytes, and 12 are right")]
    [InlineData("07000000" + "00000000" + "0c000000" + "00000000" + "01400000" + "01000000", "16385 by 1 pixels is larger")]
    [InlineData("07000000" + "00000000" + "0c000000" + "00000000" + "01000000" + "ffffffff", "1 by 4294967295 pixels is larger")]
    [InlineData("09000000" + "00000000" + "28000000" + "00000000" + "00000000" + "00000000" + "00000080" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000", "2147483648 by 0 pixels is larger")]
    [InlineData("08000000" + "00000000" + "13000000" + "00", "has 19 bytes, and 20 are the least")]
    [InlineData("08000000" + "00000000" + "14000000" + "00000000" + "00000000" + "00000000" + "01000000" + "01000000", "1 by 1 pixels has 0 bytes")]
    [InlineData("08000000" + "00000000" + "18000000" + "00000000" + "00000000" + "00000000" + "01000000" + "00000000", "1 by 0 pixels has 4 bytes")]
    // Their product has 32 bits of zeroes.
    [InlineData("08000000" + "00000000" + "14000000" + "00000000" + "00000000" + "00000000" + "00000100" + "00000100", "65536 by 65536 pixels is larger")]
    [InlineData("08000000" + "00000000" + "14000000" + "00000000" + "00000000" + "00000000" + "00000040" + "01000000", "1073741824 by 1 pixels is larger")]
    public void What_cannot_be_right_ends_this_connection_and_no_more(string bytes, string words)
    {
        using var fixture = new DisplayFixture(screenshot: true);
        Send(fixture, bytes);
        fixture.AssertBroken(words);
    }

    [Theory]
    [InlineData(GpuDisplay.GetDisplayInfo, 1)]
    [InlineData(GpuDisplay.DmabufScanout, 2)]
    [InlineData(GpuDisplay.Update, 1)]
    public void Descriptors_where_none_belong_are_closed_and_end_the_connection(uint request, int count)
    {
        using var fixture = new DisplayFixture();
        (FileDescriptor read, FileDescriptor write) = Pipe();
        using (read)
        {
            uint[] numbers = new uint[request switch { GpuDisplay.DmabufScanout => 10, GpuDisplay.Update => 5, _ => 0 }];
            using (write)
                Assert.Equal(0, fixture.Peer.Send(GpuDisplay.Encode(request, numbers), [.. Enumerable.Repeat(write.Number, count)]));
            fixture.AssertBroken($"came with {count} descriptors");
            AssertAtEnd(read);
        }
    }

    [Fact]
    public void Half_a_message_and_nobody_there_is_no_news_before_the_end_and_an_end_then()
    {
        using var fixture = new DisplayFixture();
        fixture.Settle();
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 1, 1).AsSpan(0, 20));
        fixture.Peer.Dispose();
        DisplayFixture.WaitFor(() => fixture.Counters.Breaks == 1, "the end");
        Assert.Contains("in the middle of its request Scanout", Assert.Single(fixture.Log), StringComparison.Ordinal);
        // Between two messages it is no more than an end.
        fixture.Connect();
        fixture.Settle();
        fixture.Peer.Dispose();
        DisplayFixture.WaitFor(() => !fixture.Display.IsConnected, "the end");
        Assert.Single(fixture.Log);
    }

    [Fact]
    public void One_that_reads_no_answers_is_let_go_of()
    {
        using var fixture = new DisplayFixture();
        byte[] ask = GpuDisplay.Encode(GpuDisplay.GetEdid, 0);
        for (int i = 0; i < 100_000 && fixture.Counters.Breaks == 0; i++)
            _ = fixture.Peer.Send(ask);
        fixture.AssertBroken("does not read the answers");
    }

    [Fact]
    public void Another_connection_takes_the_place_of_one_that_waits_in_the_middle_of_a_message()
    {
        using var fixture = new DisplayFixture();
        GpuDisplay first = fixture.Peer;
        first.Send(GpuDisplay.Encode(GpuDisplay.Update, 0, 0, 0, 100, 100).AsSpan(0, 20));
        fixture.Connect();
        fixture.Settle();
        Assert.True(first.WaitForEnd());
        first.Dispose();
        Assert.Equal((2, 0), (fixture.Counters.Connects, fixture.Counters.Breaks));
        Assert.Empty(fixture.Log);
    }

    [Fact]
    public void What_lies_outside_of_the_picture_is_cut_off()
    {
        using var fixture = new DisplayFixture(screenshot: true);
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 4, 4));
        Assert.Equal(0, fixture.Peer.Fill(3, 3, 1000, 300, 0xFF0000));
        Assert.Equal(0, fixture.Peer.Fill(0, uint.MaxValue - 1, 1, 4, 0x00FF00));
        Assert.Equal(0, fixture.Peer.Fill(uint.MaxValue, 0, 4, 1, 0x00FF00));
        Assert.Equal(0, fixture.Peer.Fill(0, 0, 0, 5, 0));
        Assert.Equal(0, fixture.Peer.Fill(2, 0, 2, 1, 0x0000FF));
        fixture.Settle();
        (_, _, byte[] pixels) = fixture.WaitForScreenshot(picture => picture.Pixels.Count(value => value != 0) == 3);
        Assert.Equal([0xFF, 0, 0], pixels[^3..]);
        Assert.Equal([0, 0, 0xFF, 0, 0, 0xFF], pixels[6..12]);
    }

    [Fact]
    public void The_last_picture_stays_when_the_display_is_switched_off_and_is_written_at_the_end()
    {
        using var fixture = new DisplayFixture(settings => settings with { ScreenshotInterval = 1_000_000 }, screenshot: true);
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 8, 8));
        fixture.Peer.Fill(0, 0, 8, 8, 0x102030);
        _ = fixture.WaitForScreenshot(_ => true);
        fixture.Peer.Fill(0, 0, 8, 8, 0x405060);
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 0, 0));
        fixture.Peer.Fill(0, 0, 8, 8, 0x708090);
        fixture.Settle();
        Assert.Equal((3, 1, 0), (fixture.Counters.Updates, fixture.Counters.Dropped, fixture.Counters.Width));
        // So soon after the first one it is not written again.
        Assert.Equal([0x10, 0x20, 0x30], DisplayFixture.Read(fixture.Screenshot).Pixels[..3]);
        fixture.Display.Dispose();
        Assert.Equal([0x40, 0x50, 0x60], DisplayFixture.Read(fixture.Screenshot).Pixels[..3]);
        Assert.Equal(2, fixture.Counters.Screenshots);
        Assert.Equal([fixture.Screenshot], Directory.GetFiles(Path.GetDirectoryName(fixture.Screenshot)!));
    }

    [Fact]
    public void Pictures_of_any_size_come_after_each_other_and_one_too_large_is_not_kept()
    {
        using var fixture = new DisplayFixture(screenshot: true);
        foreach (uint side in (uint[])[100, 4, 300, 7])
        {
            fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, side, side));
            fixture.Peer.Fill(0, 0, 1, 1, 0xFFFFFF);
            (_, _, byte[] pixels) = fixture.WaitForScreenshot(picture => picture.Width == side);
            // Nothing of the one before.
            Assert.Equal(3, pixels.Count(value => value != 0));
        }
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 4096, 4097));
        fixture.Peer.Fill(0, 0, 64, 64, 0xFFFFFF);
        fixture.Settle();
        Assert.Equal((1, 4096, 4097), (fixture.Counters.Dropped, fixture.Counters.Width, fixture.Counters.Height));
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 1, 64, 64));
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Update, 1, 0, 0, 1, 1, 0));
        fixture.Settle();
        Assert.Equal((3, 4096), (fixture.Counters.Dropped, fixture.Counters.Width));
        Assert.Equal(7, DisplayFixture.Read(fixture.Screenshot).Width);
    }

    [Fact]
    public void A_flood_of_updates_does_not_keep_the_picture_from_its_file()
    {
        using var fixture = new DisplayFixture(screenshot: true);
        bool stop = false;
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 64, 64));
        var flood = new Thread(() =>
        {
            byte[] update = GpuDisplay.Encode(GpuDisplay.Update, [0, 0, 0, 1, 1, 0xFFFFFF]);
            while (!Volatile.Read(ref stop))
                _ = fixture.Peer.Send(update);
        });
        flood.Start();
        DisplayFixture.WaitFor(() => fixture.Counters.Screenshots >= 3, "three screenshots");
        Volatile.Write(ref stop, true);
        flood.Join();
    }

    [Fact]
    public void A_screenshot_that_cannot_be_written_is_told_at_the_start_or_once()
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-{Guid.NewGuid():N}", "x.ppm");
        VmmException error = Assert.Throws<VmmException>(() => new HeadlessDisplay("gpu0", new DisplaySettings { Screenshot = path }, _ => { }));
        Assert.Contains("Cannot write a screenshot", error.Message, StringComparison.Ordinal);
        Assert.Throws<VmmException>(() => new HeadlessDisplay("gpu0", new DisplaySettings { Screenshot = Path.GetTempPath() }, _ => { }));
        using var fixture = new DisplayFixture(screenshot: true);
        _ = Directory.CreateDirectory(fixture.Screenshot);
        fixture.Peer.Send(GpuDisplay.Encode(GpuDisplay.Scanout, 0, 8, 8));
        for (uint i = 0; i < 5; i++)
        {
            fixture.Peer.Fill(0, 0, 8, 8, i);
            Thread.Sleep(30);
        }
        fixture.Settle();
        Assert.Contains("is given up", Assert.Single(fixture.Log), StringComparison.Ordinal);
        Assert.Equal(0, fixture.Counters.Screenshots);
    }

    [Theory]
    [InlineData(312, 768)]
    [InlineData(1028, 768)]
    [InlineData(4096, 768)]
    [InlineData(1024, 199)]
    [InlineData(1024, 2401)]
    public void Sizes_that_cannot_be_told_are_refused(int width, int height) =>
        Assert.Throws<VmmException>(() => new DisplaySettings { Width = width, Height = height }.Validate());

    private static void Send(DisplayFixture fixture, string hex, params int[] descriptors) =>
        Assert.Equal(0, fixture.Peer.Send(Convert.FromHexString(hex), descriptors));

    private static string Ask(DisplayFixture fixture, string hex)
    {
        Send(fixture, hex);
        byte[]? answer = fixture.Peer.Receive();
        Assert.NotNull(answer);
        return Convert.ToHexStringLower(answer);
    }

    private static unsafe (FileDescriptor Read, FileDescriptor Write) Pipe()
    {
        int* ends = stackalloc int[2];
        Assert.Equal(0, LibC.pipe2(ends, LibC.O_CLOEXEC));
        return (new FileDescriptor(ends[0]), new FileDescriptor(ends[1]));
    }

    private static unsafe void AssertAtEnd(FileDescriptor pipe)
    {
        var wanted = new pollfd { fd = pipe.Number, events = LibC.POLLIN };
        Assert.Equal(1, LibC.poll(&wanted, 1, 10_000));
        byte one;
        Assert.Equal(0, LibC.read(pipe.Number, &one, 1));
    }
}
