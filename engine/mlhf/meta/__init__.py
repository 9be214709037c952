"""Meta-training: how the learned optimizers learn (paper, section 5)."""
