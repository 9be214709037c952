"""What makes our optimizers ones of ``torch.optim``: groups, recorded passes, states."""
