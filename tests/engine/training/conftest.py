import pytest

MODEL = {
    "name": "mlp",
    "params": {"hidden": [16], "batch_norm": True, "dropout": 0.2},
}


def _config(optimizer="adam", **changes):
    return {
        "model": MODEL,
        "dataset": {"name": "digits", "params": {"train_samples": 300, "test_samples": 50}},
        "optimizer": {"name": optimizer} if isinstance(optimizer, str) else optimizer,
        "budget": {"steps": 20},
        "batch_size": 32,
        "seed": 3,
        "threads": 1,
        "device": "cpu",
        **changes,
    }


@pytest.fixture
def config():
    """Makes a small run's configuration: 10 steps an epoch, dropout and batch norm."""
    return _config


@pytest.fixture
def points():
    """Collects all points of a list of events, as (step, values)."""

    def collect(events):
        return [
            (p["step"], p["values"]) for e in events if e["type"] == "points" for p in e["points"]
        ]

    return collect
