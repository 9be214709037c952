"""MLHF, the meta-learned Hessian-free optimizer, and its coordinatewise networks."""
