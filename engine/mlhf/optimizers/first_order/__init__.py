"""Optimizers that need a gradient alone."""
