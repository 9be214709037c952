"""Which form of the networks is chosen, and that the optimizer says the one that runs."""

from types import SimpleNamespace

import pytest
import torch

from mlhf.optimizers.mlhf.kernels import choose as choosing
from mlhf.optimizers.mlhf.kernels import library
from mlhf.optimizers.mlhf.kernels.choose import Choice, choose
from mlhf.optimizers.mlhf.paper.optimizer import PaperMLHF
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights
from tests.engine.optimizers.mlhf.conftest import Tanh

ON_A_GPU = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)


def test_on_a_cpu_it_is_the_compiled_one():
    if library.obstacle():
        pytest.skip(library.obstacle())
    found = choose(NetworkWeights(), torch.zeros(1))
    assert found == Choice("cpp")
    assert PaperMLHF(Tanh(), meta_checkpoint=None).kernel_choice == found


@pytest.mark.parametrize(
    ("dtype", "kernel", "reason"),
    [(torch.float64, "auto", "float64"), (torch.float32, "torch", "asked for")],
    ids=["float64", "asked for"],
)
def test_the_optimizer_says_where_it_is_plain_torch_and_why(dtype, kernel, reason):
    choice = PaperMLHF(Tanh().to(dtype), meta_checkpoint=None, kernel=kernel).kernel_choice
    assert choice.path == "torch"
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("", Choice("triton")), ("not there", Choice("torch", "not there"))],
    ids=["triton", "no triton"],
)
def test_on_a_gpu_it_is_triton_where_that_is(reason, expected, monkeypatch):
    monkeypatch.setattr(choosing, "_no_triton", lambda: reason)
    assert choose(NetworkWeights(), ON_A_GPU) == expected
    if reason:
        with pytest.raises(RuntimeError, match=reason):
            choose(NetworkWeights(), ON_A_GPU, "triton")
    else:
        assert choose(NetworkWeights(), ON_A_GPU, "triton") == expected


@pytest.mark.parametrize(
    ("like", "wanted"),
    [(ON_A_GPU, "cpp"), (torch.zeros(1), "triton")],
    ids=["cpp on a GPU", "triton on a CPU"],
)
def test_the_other_devices_kernel_is_refused(like, wanted):
    with pytest.raises(RuntimeError, match=f"the {wanted} kernel cannot run here"):
        choose(NetworkWeights(), like, wanted)
