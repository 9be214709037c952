"""What the benchmarks' protocols share: runs in folders, sessions, tables and figures."""
