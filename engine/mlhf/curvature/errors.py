"""Errors of curvature products."""


class CurvatureError(RuntimeError):
    """A curvature product that cannot be computed correctly; the message says why."""
