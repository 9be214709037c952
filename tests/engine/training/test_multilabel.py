"""Several labels a sample, from the file to predictions."""

import numpy as np
import pytest

from mlhf.models.files import load_model
from mlhf.training.run import train


@pytest.mark.parametrize("optimizer", ["adam", "mlhf", "hf_adam", "kfac"])
def test_several_labels_are_learned_by_binary_cross_entropy(tmp_path, optimizer):
    x = np.random.default_rng(0).normal(size=(200, 4))
    y = (x[:, :3] > 0).astype(np.int64)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    config = {
        "model": {"name": "mlp", "params": {"hidden": [8]}},
        "dataset": {"name": "npz", "params": {}, "root": str(tmp_path)},
        "optimizer": {"name": optimizer, "params": {"lr": 0.03} if optimizer == "adam" else {}},
        "budget": {"epochs": 6},
        "batch_size": 32,
    }
    events = []
    result = train(config, events.append, tmp_path / "run")
    first = next(p["values"] for e in events if e["type"] == "points" for p in e["points"])
    assert first["train_loss"] == pytest.approx(np.log(2), abs=0.2), "a mean over labels"
    assert result.summary["test_accuracy"]["last"] > 0.8
    network = load_model(tmp_path / "run" / "artifacts")
    assert (network.loss, network.info.task) == ("binary_cross_entropy", "multilabel")
    predicted = network.predict(x).numpy()
    assert predicted.shape == y.shape
    assert (predicted == y).mean() > 0.8
