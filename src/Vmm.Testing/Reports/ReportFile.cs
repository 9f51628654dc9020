using Vmm.Core;
using Vmm.Core.Interop;

namespace Vmm.Testing.Reports;

/// <summary>A report's file: whoever reads it sees all of it or what was there before.</summary>
internal static class ReportFile
{
    /// <summary>
    /// Writes it beside its place and renames it there; its directories are made. What is there and is no file (a pipe, <c>/dev/stdout</c>)
    /// is written to as it is. A link is followed.
    /// </summary>
    /// <param name="path">Its place.</param>
    /// <param name="what">What it is, for the error: <c>the JUnit report</c>.</param>
    /// <param name="write">Writes its content.</param>
    /// <exception cref="VmmException">It cannot be written.</exception>
    internal static void Write(string path, string what, Action<Stream> write)
    {
        string? part = null;
        try
        {
            string target = !File.Exists(path) || new FileInfo(path).LinkTarget is null ? Path.GetFullPath(path) : File.ResolveLinkTarget(path, returnFinalTarget: true)!.FullName;
            if (IsSpecial(path))
            {
                using var special = new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
                write(special);
                return;
            }

            string directory = Path.GetDirectoryName(target) ?? "/";
            Directory.CreateDirectory(directory);
            part = Path.Combine(directory, $".vmm-{Path.GetRandomFileName()}.part");
            using (var file = new FileStream(part, FileMode.CreateNew, FileAccess.Write, FileShare.Read))
                write(file);
            File.Move(part, target, overwrite: true);
            part = null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw VmmException.Host($"Cannot write {what} to {path}: {e.Message.TrimEnd('.')}; the tests have run, and other reports are not affected.", e);
        }
        finally
        {
            if (part is not null)
                Forget(part);
        }
    }

    private static void Forget(string part)
    {
        try
        {
            File.Delete(part);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The error that led here is the one to be told.
        }
    }

    private static unsafe bool IsSpecial(string path)
    {
        statx status;

        // The pointer is to a local.
        if (LibC.statx(LibC.AT_FDCWD, path, 0, LibC.STATX_TYPE, &status) != 0)
            return false;
        return (status.stx_mode & LibC.S_IFMT) is not (LibC.S_IFREG or LibC.S_IFDIR);
    }
}
