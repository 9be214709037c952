"""What holds for all tests: threads, markers, time limits, and what a machine may lack.

One thread of torch for each process of the tests, those that they start included: two test
processes of two threads each on two cores wait for each other more than they compute.
"""

import os
from pathlib import Path

import pytest

from tests import machine

os.environ["OMP_NUM_THREADS"] = "1"

# A limit is there for what hangs; on a busy machine these take a multiple of their usual time.
_SERVICES_SECONDS = 900

# Tests that use these fixtures carry these markers.
_MARKER_OF_FIXTURE = {
    "browser": "browser",
    "real_data": "data",
    "serving": "services",
    "wheel": "slow",
}

if machine.BARE:
    from mlhf.data import fashion_mnist

    machine.hide_packages()
    fashion_mnist.SYSTEM_FOLDER = Path("/nonexistent")

try:
    import hypothesis
except ImportError:
    pass  # tests that need it say so
else:  # drawing an example may take long where others use the processor
    hypothesis.settings.register_profile(
        "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("busy")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures, give services time, skip what needs a missing GPU.

    The longest come first: what is long and comes last is waited for by idle processes.
    """
    for item in items:
        for fixture, marker in _MARKER_OF_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
        if item.get_closest_marker("services"):
            item.add_marker(pytest.mark.timeout(_SERVICES_SECONDS))
    items.sort(key=_length, reverse=True)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _length(item: pytest.Item) -> int:
    marks = enumerate(("slow", "services", "long"))
    return sum(2**at for at, name in marks if item.get_closest_marker(name))
