"""What can be done with data sets."""

from app.datasets.resolve import ResolvedDataset, resolve

__all__ = ["ResolvedDataset", "resolve"]
