"""The command line: flags -> Job, events -> progress. Knows nothing of networks or pixels."""
