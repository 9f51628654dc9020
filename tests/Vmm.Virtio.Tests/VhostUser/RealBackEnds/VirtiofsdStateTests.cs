using System.Text;
using Vmm.Core;
using Vmm.Virtio.VhostUser;

namespace Vmm.Virtio.Tests.VhostUser.RealBackEnds;

/// <summary>The state of virtiofsd, out of one process into a file and from there into the next, by DEVICE_STATE; and where that goes wrong.</summary>
public sealed class VirtiofsdStateTests : IDisposable
{
    private const int NoSuchFile = 2, StaleHandle = 116, IoError = 5;

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("vmm-fs");

    public VirtiofsdStateTests()
    {
        Directory.CreateDirectory(PathOf("tree/inner"));
        File.WriteAllText(PathOf("tree/inner/one"), "the first file");
        File.WriteAllText(PathOf("tree/two"), "the second file");
    }

    public void Dispose() => _directory.Delete(recursive: true);

    [SkippableTheory]
    [InlineData("--migration-mode=find-paths")]
    [InlineData("--migration-mode=file-handles --modcaps=+dac_read_search")]
    public void A_driver_goes_on_with_its_open_files_where_another_process_took_over(string options)
    {
        DebianRoot.Require();
        (ulong Node, ulong Handle) one, two;
        using (RealBackEnd first = Start(options))
        {
            FuseClient files = Begin(first);
            one = Open(files, "tree/inner/one");
            two = Open(files, "tree/two");
            Assert.Equal(0, files.WriteFile(two.Node, two.Handle, 4, "2nd"u8.ToArray()));
            File.WriteAllBytes(PathOf("state"), first.Save());
        }

        using RealBackEnd second = Start(options);
        second.FrontEnd.LoadState(File.ReadAllBytes(PathOf("state")));
        second.Driver.Start();
        // No FUSE_INIT, no lookup, no open: the other had these.
        var again = new FuseClient(second.Driver.Queues[1]);
        Assert.Equal("the first file", Read(again, one));
        Assert.Equal("the 2ndond file", Read(again, two));
        Assert.Equal(0, again.WriteFile(one.Node, one.Handle, 0, "THE"u8.ToArray()));
        Assert.Equal("THE first file", File.ReadAllText(PathOf("tree/inner/one")));
        Assert.Equal(0, again.Find("tree/inner/one").Error);
        Assert.Equal(NoSuchFile, again.Find("tree/three").Error);
    }

    [SkippableFact]
    public void It_serves_on_after_it_was_saved()
    {
        DebianRoot.Require();
        using RealBackEnd only = Start("--migration-mode=find-paths");
        FuseClient files = Begin(only);
        (ulong Node, ulong Handle) one = Open(files, "tree/inner/one");
        byte[] state = only.Save();
        Assert.NotEmpty(state);
        // The rings begin anew, and what is open stays so.
        foreach (Driver.DriverQueue queue in only.Driver.Queues)
            queue.Reset();
        only.Driver.Start();
        Assert.Equal("the first file", Read(files, one));
        only.Driver.Restart();
        Assert.Equal("the first file", Read(files, one));
    }

    [SkippableTheory]
    [InlineData("none of it")]
    [InlineData("half")]
    [InlineData("noise")]
    public void A_state_that_is_none_is_refused_and_says_so(string what)
    {
        DebianRoot.Require();
        byte[] state;
        using (RealBackEnd first = Start("--migration-mode=find-paths"))
        {
            _ = Open(Begin(first), "tree/two");
            state = first.Save();
        }
        byte[] wrong = what switch { "none of it" => [], "half" => state[..(state.Length / 2)], _ => Encoding.ASCII.GetBytes(new string('x', 4096)) };
        using RealBackEnd second = Start("");
        VmmException error = Assert.Throws<VmmException>(() => second.FrontEnd.LoadState(wrong));
        Assert.StartsWith("Cannot restore the state of real0: its back-end does not take it: ", error.Message, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_file_that_is_gone_costs_the_migration_or_only_itself(bool abort)
    {
        DebianRoot.Require();
        (ulong Node, ulong Handle) one, two;
        byte[] state;
        using (RealBackEnd first = Start("--migration-mode=find-paths"))
        {
            FuseClient files = Begin(first);
            one = Open(files, "tree/inner/one");
            two = Open(files, "tree/two");
            state = first.Save();
        }
        File.Delete(PathOf("tree/inner/one"));
        using RealBackEnd second = Start($"--migration-on-error={(abort ? "abort" : "guest-error")}");
        if (abort)
        {
            VmmException error = Assert.Throws<VmmException>(() => second.FrontEnd.LoadState(state));
            Assert.Contains("CHECK_DEVICE_STATE", error.Message, StringComparison.Ordinal);
            return;
        }
        second.FrontEnd.LoadState(state);
        second.Driver.Start();
        var again = new FuseClient(second.Driver.Queues[1]);
        Assert.Equal("the second file", Read(again, two));
        Assert.Contains(again.ReadFile(one.Node, one.Handle, 0, 100).Error, new[] { NoSuchFile, StaleHandle, IoError, 9, 22 });
    }

    private string PathOf(string name) => Path.Combine(_directory.FullName, name);

    private RealBackEnd Start(string options)
    {
        byte[] configuration = new byte[44];
        "files"u8.CopyTo(configuration);
        configuration[36] = 1;
        return new RealBackEnd(
            _directory.FullName, $"exec /usr/libexec/virtiofsd --socket-path=/mnt/s --shared-dir=/mnt --sandbox=none --log-level=info {options}",
            VirtioDeviceType.FileSystem, 2, settings => settings with { Configuration = configuration });
    }

    private static FuseClient Begin(RealBackEnd backEnd)
    {
        backEnd.Driver.Start();
        var files = new FuseClient(backEnd.Driver.Queues[1]);
        files.Begin();
        return files;
    }

    private static (ulong Node, ulong Handle) Open(FuseClient files, string path)
    {
        (ulong node, int error) = files.Find(path);
        Assert.Equal(0, error);
        return (node, files.OpenFile(node));
    }

    private static string Read(FuseClient files, (ulong Node, ulong Handle) file)
    {
        (byte[] data, int error) = files.ReadFile(file.Node, file.Handle, 0, 100);
        Assert.Equal(0, error);
        return Encoding.ASCII.GetString(data);
    }
}
