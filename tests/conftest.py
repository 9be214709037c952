"""One thread of torch for each process of the tests, those that they start included.

Two test processes of two threads each on two cores wait for each other more than they compute.
"""

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

if os.environ.get("MLHF_TEST_BARE") == "1":  # as on a machine without data sets
    from mlhf.data import fashion_mnist

    fashion_mnist.SYSTEM_FOLDER = Path("/nonexistent")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
