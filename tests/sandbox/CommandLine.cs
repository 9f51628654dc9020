using System.Globalization;

namespace Vmm.Sandbox;

/// <summary>The sandbox as a command: starts one, copies in, runs a command, copies out, ends with the command's exit code.</summary>
internal static class CommandLine
{
    private const string Usage = """
        usage: sandbox run [OPTION]... [--] COMMAND...   start a sandbox, run the command, end with its exit code
               sandbox image [--debian]                  make the sandbox's image if it is not there, print its directory
               sandbox guest NAME...                     make guest images, print their directories

          --copy-in SOURCE:DESTINATION    copy a file or directory in before (repeatable)
          --copy-out SOURCE:DESTINATION   copy a file or directory out afterwards, whatever the exit code (repeatable)
          --drive FILE[:NAME]             the file as the disk /dev/drive/NAME, without a copy; writes are not kept (repeatable)
          --env NAME=VALUE                set a variable for the command (repeatable)
          --directory PATH                run the command there
          --debian                        on the Debian root with the real back-ends and tools, not the light one
          --memory MIB                    of the sandbox, default 7168
          --cpus N                        of the sandbox, default 2
          --icount                        count instructions instead of time; one processor
          --timeout SECONDS               kill the command after that, exit code 124; default none
          --interactive                   give the command this terminal
          --console                       show the sandbox's own console on stderr

        Several words of COMMAND are passed on as they are; one word is a line for the shell.
        Exit codes of its own: 124 time limit, 125 the sandbox failed, 2 wrong use.
        """;

    public static async Task<int> RunAsync(string[] arguments)
    {
        try
        {
            switch (arguments.FirstOrDefault())
            {
                case "run":
                    return await SandboxRun.Parse(arguments.AsSpan(1)).RunAsync().ConfigureAwait(false);
                case "image":
                    var flavour = arguments.Contains("--debian") ? SandboxFlavour.Debian : SandboxFlavour.Light;
                    Console.WriteLine(await SandboxImage.BuildAsync(flavour).ConfigureAwait(false));
                    return 0;
                case "guest" when arguments.Length > 1:
                    foreach (var name in arguments.Skip(1))
                        Console.WriteLine(await SandboxImage.BuildGuestAsync(name).ConfigureAwait(false));
                    return 0;
                case "--help" or "-h" or "help":
                    Console.WriteLine(Usage);
                    return 0;
                default:
                    Console.Error.WriteLine(Usage);
                    return 2;
            }
        }
        catch (FormatException e)
        {
            Console.Error.WriteLine($"sandbox: {e.Message}");
            return 2;
        }
        catch (SandboxException e)
        {
            Console.Error.WriteLine($"sandbox: {e.Message}");
            return 125;
        }
    }

    public static int Number(string option, string text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number > 0
            ? number
            : throw new FormatException($"'{text}' is no whole number above 0, which {option} needs.");

    public static (string Left, string Right) Pair(string option, string text, char separator)
    {
        var at = text.IndexOf(separator, StringComparison.Ordinal);
        return at > 0 && at < text.Length - (separator == ':' ? 1 : 0)
            ? (text[..at], text[(at + 1)..])
            : throw new FormatException($"'{text}' is not of the form {(separator == ':' ? "SOURCE:DESTINATION" : "NAME=VALUE")}, which {option} needs.");
    }
}
