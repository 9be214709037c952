"""Least squares to many digits: ``python -m bench.science``."""
