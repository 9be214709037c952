"""The benchmark behind docs/results.md: optimizers are judged by one protocol.

Every contender is tuned by the same budget, then judged on other seeds, by samples and by
seconds, against criteria that are fixed in advance. Run it with ``python -m bench.judge``.
"""
