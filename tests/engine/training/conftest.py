import pytest


@pytest.fixture
def points():
    """Collects all points of a list of events, as (step, values)."""

    def collect(events):
        return [
            (p["step"], p["values"]) for e in events if e["type"] == "points" for p in e["points"]
        ]

    return collect
