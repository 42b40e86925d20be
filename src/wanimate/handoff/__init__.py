"""Hand-off: a finished result becomes a folder that other people's programs read. No engine, no service."""
