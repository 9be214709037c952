"""Differential equations: a closed catalogue, and equations of the user's own as formulas."""
