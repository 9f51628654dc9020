using Vmm.Sandbox;

return await CommandLine.RunAsync(args).ConfigureAwait(false);
