"""Rows of the Jacobian of a network's outputs: one for each sample and output."""
