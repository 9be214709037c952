"""Batches that batch norm cannot train on are refused, and no others."""

import itertools

import pytest
import torch

from mlhf import train
from mlhf.core.budget import Epoch
from mlhf.core.errors import SpecError
from mlhf.curvature.microbatches import split_batch
from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.specs import summarize
from mlhf.optimizers.params import FixedDampingParams
from mlhf.training.batch_norm import check_batches, check_microbatches
from mlhf.training.order import BatchOrder

IMAGES = DataInfo("image", (1, 4, 4), 3, "classification", 10, 2)
NORM = {"type": "batch_norm"}
POOL = [{"type": "max_pool2d", "kernel_size": 4}]
HEAD = [{"type": "flatten"}, {"type": "linear"}]
WRAPPED = {"type": "residual", "layers": [NORM]}
NETWORKS = {
    "vector": ("mlp", {"hidden": [4], "batch_norm": True}),
    "none": ("mlp", {"hidden": [4]}),
    "image": ("sequential", {"layers": [NORM, *HEAD]}),
    "one pixel": ("sequential", {"layers": [*POOL, NORM, *HEAD]}),
    "inside a block": ("sequential", {"layers": [*POOL, WRAPPED, *HEAD]}),
    "other norms": (
        "sequential",
        {"layers": [*POOL, {"type": "group_norm", "groups": 1}, {"type": "layer_norm"}, *HEAD]},
    ),
    "resnet": ("resnet", {"depth": 8, "width": 0.125}),
    "resnet of one pixel": ("resnet", {"depth": 18, "width": 0.125}),
}


def _trains(name: str, sizes: set[int]) -> bool:
    """Whether torch runs the network, in training, on batches of these sizes."""
    model = build(*NETWORKS[name], IMAGES, 0).train()
    try:
        for size in sizes:
            model(torch.randn(size, *IMAGES.input_shape))
    except ValueError:  # "expected more than 1 value per channel"
        return False
    return True


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("samples", "batch_size"), [(1, 1), (3, 1), (3, 2), (5, 3), (4, 4)])
def test_a_batch_is_refused_exactly_where_torch_refuses_it(name, samples, batch_size):
    order = BatchOrder(samples, batch_size, 0)
    sizes = {len(order.next()) for _ in range(order.steps_per_epoch)}
    epoch = Epoch(samples, batch_size)
    assert epoch.batch_sizes == sizes
    summary = summarize(*NETWORKS[name], IMAGES)
    if _trains(name, sizes):
        check_batches(summary, epoch)
        return
    with pytest.raises(SpecError, match=f"^{batch_size} is too small for batch norm") as caught:
        check_batches(summary, epoch)
    assert caught.value.pointer == "/batch_size"


@pytest.mark.parametrize("name", ["vector", "image", "none"])
def test_so_is_what_it_is_cut_into(name):
    summary = summarize(*NETWORKS[name], IMAGES)
    cuts = [None, 1, 2, 3, 4, 8]
    refused = set()
    for batch_size, micro, curved in itertools.product([2, 5, 8], cuts, cuts):
        epoch = Epoch(10, batch_size)
        sizes = {
            part.stop - part.start
            for samples in epoch.batch_sizes
            for part in split_batch(samples, micro, curved)
        }
        params = FixedDampingParams(micro_batch=micro, curvature_batch=curved)
        try:
            check_microbatches(summary, params, epoch)
        except SpecError as error:
            refused.add(error.pointer)
            assert not _trains(name, sizes), (batch_size, micro, curved)
        else:
            assert _trains(name, sizes), (batch_size, micro, curved)
    expected = {"/params/micro_batch", "/params/curvature_batch"}
    assert refused == (expected if name == "vector" else set())


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"batch_size": 1}, "/batch_size"),
        (
            {"optimizer": {"name": "hf_lm", "params": {"micro_batch": 31}}},
            "/optimizer/params/micro_batch",
        ),
    ],
)
def test_a_run_is_refused_before_it_starts(config, changes, pointer):
    events = []
    with pytest.raises(SpecError) as caught:
        train(config(**changes), on_event=events.append)
    assert caught.value.pointer == pointer
    assert events == []
