"""Errors whose message is meant for the person at the terminal."""


class StartError(Exception):
    """The service cannot start. The message says why, and what to do about it."""
