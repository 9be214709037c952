"""Load: what the service bears, and how fast. ``python -m bench.load --help``."""
