"""Losses with options, as objects and as data."""
