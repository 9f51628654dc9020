using Vmm.Core;
using Vmm.VhostUserBackEnd;
using Vmm.VhostUserBackEnd.Tool;

// vhost-user-backend --socket=PATH [--client] --device=blk|fs|rng|echo|shmem [OPTION...]
// vhost-user-backend conformance --socket=PATH [--scenario=NAME...] [OPTION...]
// See README.md beside this, or --help.
try
{
    if (args.Length == 0 || args[0] is "--help" or "-h")
    {
        Console.Out.Write(ToolOptions.Help);
        return args.Length == 0 ? 2 : 0;
    }
    if (args[0] == "conformance")
        return ConformanceCommand.Run(new ToolOptions(args.AsSpan(1)));
    var options = new ToolOptions(args);
    BackEnd backEnd = options.MakeBackEnd();
    if (options.Has("trace"))
        backEnd.Transcript.Trace = entry => Console.Error.WriteLine(entry);
    using BackEndServer server = options.Has("client")
        ? BackEndServer.Connect(backEnd, options.Socket)
        : BackEndServer.Listen(backEnd, options.Socket);
    options.RejectUnused();
    Console.Out.WriteLine("ready");
    using var commands = new ToolCommands(backEnd, server);
    if (commands.Obey(Console.In))
        return 0;
    // Nobody commands any more: serve until somebody ends this.
    Thread.Sleep(Timeout.Infinite);
    return 0;
}
catch (VmmException e)
{
    Console.Error.WriteLine(e.Message);
    return e.Kind == VmmErrorKind.Configuration ? 2 : 1;
}
