"""Deleting things: what depends on them, their rows, and their files."""
