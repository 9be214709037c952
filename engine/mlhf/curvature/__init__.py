"""Curvature matrices of a network's loss, as products that share one forward pass."""
