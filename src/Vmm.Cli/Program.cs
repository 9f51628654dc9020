using Vmm.Cli;

return CommandLine.Run(args);
