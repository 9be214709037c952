"""A typed client of a running service."""
