"""Files that a user was given: what does not fit, or is no finite number, is refused by name."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn

from mlhf import MLHF, MetaCheckpoint
from mlhf.core.errors import DataError
from mlhf.optimizers.l2l import L2L
from mlhf.optimizers.learned.families import FAMILIES, FORMAT
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint

MAKE = {
    "mlhf": MLHF,
    "mlhf_paper": lambda model, loss, source: MLHF(model, loss, source, "paper"),
    "l2l": L2L,
}


def _write(path, family, change=lambda tensors: None, lineage="{}"):
    shipped = load_meta_checkpoint("default", family)
    tensors = {
        f"{network}.{name}": value.clone()
        for network, values in shipped.weights.items()
        for name, value in values.items()
    }
    change(tensors)
    metadata = {"format": FORMAT, "optimizer": family, "lineage": lineage}
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    return path


def _first(tensors):
    return next(iter(sorted(tensors)))


def _filled(value):
    def change(tensors):
        tensors[_first(tensors)].view(-1)[0] = value

    return change


def _cast(dtype):
    def change(tensors):
        tensors[_first(tensors)] = tensors[_first(tensors)].to(dtype)

    return change


def _foreign(tensors):
    tensors["other.weight"] = torch.ones(2)


def _short(tensors):
    del tensors[_first(tensors)]


def _reshaped(tensors):
    tensors[_first(tensors)] = torch.ones(3, 1)


def _saves_complex() -> bool:
    try:
        safetensors.torch.save({"weight": torch.zeros(1, dtype=torch.complex64)})
    except KeyError:
        return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_filled(torch.nan), "holds NaN or infinity"),
        (_filled(-torch.inf), "holds NaN or infinity"),
        (_cast(torch.int8), "floating-point numbers, not torch.int8"),
        pytest.param(
            *(_cast(torch.complex64), "floating-point numbers, not torch.complex64"),
            marks=pytest.mark.skipif(not _saves_complex(), reason="needs safetensors 0.6"),
        ),
        (_foreign, "has other.weight, which is not needed"),
        (_short, "it lacks"),
        (_reshaped, r"has shape \(3, 1\), not"),
    ],
)
def test_weights_that_do_not_fit_are_named(family, change, message, tmp_path):
    path = _write(tmp_path / "file.safetensors", family, change)
    with pytest.raises(DataError, match=message):
        MAKE[family](nn.Linear(2, 2), "mse", path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lineage", ["[]", "null", "3", json.dumps("kinds"), "{", "[" * 100_000])
def test_a_lineage_that_is_none_is_refused(family, lineage, tmp_path):
    path = _write(tmp_path / "file.safetensors", family, lineage=lineage)
    with pytest.raises(DataError, match=r"file.safetensors has no lineage|cannot be read"):
        MAKE[family](nn.Linear(2, 2), "mse", path)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_in_memory_is_checked_alike(family):
    shipped = load_meta_checkpoint("default", family)
    MAKE[family](nn.Linear(2, 2), "mse", shipped)
    for lineage in ([], None):
        with pytest.raises(DataError, match="lineage"):
            MAKE[family](nn.Linear(2, 2), "mse", MetaCheckpoint(family, shipped.weights, lineage))
    other = FAMILIES[FAMILIES.index(family) - 1]
    with pytest.raises(DataError, match=f"is for {other}, not for {family}"):
        MAKE[family](nn.Linear(2, 2), "mse", load_meta_checkpoint("default", other))


def test_precision_may_be_another(tmp_path):
    path = _write(tmp_path / "file.safetensors", "mlhf", _cast(torch.float64))
    assert MLHF(nn.Linear(2, 2), "mse", path).networks["damping"].kinds.dtype == torch.float32
