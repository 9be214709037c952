"""The arithmetic of a run's memory."""

import pytest

from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models.specs import summarize
from mlhf.optimizers.specs import OPTIMIZERS
from mlhf.training.memory import PROCESS_BYTES, check_memory_bytes, training_bytes

MIB = 2**20
FLAT = DataInfo("image", (1, 8, 8), 10, "classification", 410, 102)
COLOUR = DataInfo("image", (3, 32, 32), 10, "classification", 410, 102)

# Peaks that bench/memory.py measured, in MiB.
MEASURED = [
    ([64], FLAT, 64, "sgd", {}, 324),
    ([4000], FLAT, 64, "kfac", {}, 1412),
    ([4000], FLAT, 64, "mlhf", {}, 317),
    ([4000], FLAT, 64, "shampoo", {}, 597),
    ([2048, 2048], COLOUR, 128, "sgd", {}, 541),
    ([2048, 2048], COLOUR, 128, "adam", {}, 879),
    ([2048, 2048], COLOUR, 128, "soap", {}, 881),
    ([2048, 2048], COLOUR, 128, "shampoo", {}, 1574),
    ([2048, 2048], COLOUR, 128, "hf_adam", {}, 1124),
    ([2048, 2048], COLOUR, 128, "mlhf", {}, 1619),
    ([2048, 2048], COLOUR, 128, "mlhf", {"variant": "paper"}, 6163),
    ([2048, 2048], COLOUR, 128, "l2l", {}, 13509),
]


@pytest.mark.parametrize(("hidden", "info", "batch_size", "name", "params", "peak"), MEASURED)
def test_an_estimate_is_near_what_was_measured(hidden, info, batch_size, name, params, peak):
    summary = summarize("mlp", {"hidden": hidden}, info)
    parsed = OPTIMIZERS.parse(name, params)
    total, of_batch = training_bytes(summary, info, name, parsed, batch_size)
    assert 1 / 1.5 < total / (peak * MIB) < 1.5
    assert 0 < of_batch < total - PROCESS_BYTES


def test_sides_of_matrices():
    layers = [
        {"type": "conv2d", "out_channels": 4, "kernel_size": 3, "bias": False},
        {"type": "residual", "layers": [{"type": "conv2d", "out_channels": 4, "kernel_size": 1}]},
        {"type": "image_rows"},
        {"type": "lstm", "hidden_size": 5},
        {"type": "last_step"},
        {"type": "linear"},
    ]
    found = summarize("sequential", {"layers": layers}, FLAT).matrices
    assert found == ((4, 9), (4, 4), (20, 24), (20, 5), (10, 5))


def test_a_bound_that_no_step_fits_into_is_refused() -> None:
    summary = summarize("mlp", {"hidden": [64]}, FLAT)
    least = 30 * 4 * summary.parameters  # what conjugate gradients hold

    def check(memory_bytes: int, dtype: str = "float32") -> None:
        params = OPTIMIZERS.parse("gauss_newton", {"memory_bytes": memory_bytes})
        check_memory_bytes(summary, FLAT, params, 64, dtype)

    check(least)
    check(2 * least, "float64")
    for wrong, dtype in ((7, "float32"), (least - 1, "float32"), (least, "float64")):
        with pytest.raises(SpecError, match="take mlhf") as refused:
            check(wrong, dtype)
        assert refused.value.pointer == "/params/memory_bytes"
    check_memory_bytes(summary, FLAT, OPTIMIZERS.parse("adam", {}), 64, "float32")
