"""Real images, over HTTP: what is downloaded is the network whose loss was reported."""

import json
from pathlib import Path

import pytest
import torch

from mlhf import load_model
from mlhf.data.loading import load
from mlhf.models.loss import loss_and_correct
from tests.data_folder import DATA
from tests.service.conftest import Serving
from tests.waiting import DEADLINE

pytestmark = [
    pytest.mark.services,
    pytest.mark.data,
    pytest.mark.skipif(
        not (DATA / "cifar10").is_dir(), reason=f"no CIFAR-10 in {DATA}; set MLHF_TEST_DATA"
    ),
]

TEST_SAMPLES = 2000


@pytest.fixture
def environment() -> dict[str, str]:
    return {"MLHF_DATASETS_DIR": str(DATA)}


@pytest.mark.long
def test_the_downloaded_network_has_the_reported_loss(serving: Serving, tmp_path: Path) -> None:
    serving.start("serve")
    serving.wait_until_ready()
    params = {"train_samples": 5000, "test_samples": TEST_SAMPLES}
    job = serving.client.submit(
        {
            "kind": "train",
            "model": {"name": "cuda_convnet", "params": {"width": 0.25}},
            "dataset": {"name": "cifar10", "params": params},
            "optimizer": {"name": "adam", "params": {"lr": 3e-3}},
            "budget": {"epochs": 1},
            "batch_size": 64,
        }
    )
    done = serving.client.wait(job["id"], timeout=DEADLINE)
    assert done["status"] == "succeeded", done["error"]
    (run_id,) = done["run_ids"]
    run = serving.client.get(f"/v1/runs/{run_id}")
    assert run["totals"]["samples"] == 5000
    reported = run["summary"]
    assert reported["whole_test_loss"]["last"] < 2.0, "it learned nothing"

    for name in ("model.safetensors", "model.json"):
        serving.client.download(run_id, name, tmp_path / name)
    network = load_model(tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["model"]["name"] == "cuda_convnet"

    data = load("cifar10", params, DATA / "cifar10")
    total, correct = 0.0, 0
    with torch.no_grad():
        for indices in torch.arange(TEST_SAMPLES).split(500):
            x, y = data.batch("test", indices, "cpu")
            sums = loss_and_correct("cross_entropy", network.module(x), y)
            total, correct = total + float(sums.loss), correct + int(sums.correct)
    assert total / TEST_SAMPLES == pytest.approx(reported["whole_test_loss"]["last"], rel=1e-5)
    assert correct / TEST_SAMPLES == pytest.approx(
        reported["whole_test_accuracy"]["last"], abs=1e-9
    )
