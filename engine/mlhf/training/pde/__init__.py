"""Networks that solve differential equations: points, residuals, and the training on them."""
