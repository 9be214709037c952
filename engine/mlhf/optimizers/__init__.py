"""Optimizers behind one protocol and one registry."""
