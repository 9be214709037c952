"""The command line: serve, and a client of a running service."""
