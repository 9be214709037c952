"""The benchmarks: every number that the documentation states is printed by one of them.

Not in the wheel. Run from the repository's root: ``python -m bench.engine_step --help``.
"""
