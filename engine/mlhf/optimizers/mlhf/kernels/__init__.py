"""Fused kernels for the coordinatewise networks; ``choose.py`` says which one runs."""
