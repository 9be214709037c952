"""Runs written through to another tracking server, as they go."""
