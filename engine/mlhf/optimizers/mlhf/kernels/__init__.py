"""Fused kernels: of the coordinatewise networks (``choose.py``) and of the Kronecker form's step.

``steps.py`` has the latter.
"""
