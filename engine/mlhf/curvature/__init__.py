"""Products with curvature matrices that share the primal pass with the gradient."""
