"""MLHF on tasks that nobody tuned it for: ``python -m bench.generality``."""
