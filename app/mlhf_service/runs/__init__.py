"""Runs: one training each, its curve and its artifacts."""
