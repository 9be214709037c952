"""Meta-checkpoints: what meta-training yields and learned optimizers use."""
