"""MLHF as published (Chen & Lu, arXiv 1805.08462)."""
